#include "kernels/profile_catalogue.h"

#include <array>
#include <cmath>
#include <mutex>
#include <string_view>

#include "kernels/embedded_profiles.h"
#include "kernels/profile_file.h"
#include "plan/ensure.h"

namespace rehearse {
namespace {

/// The embedded profiles, each read when it is first asked for.
class Shipped {
 public:
  const Profile& at(std::size_t index) {
    const std::lock_guard lock(mutex_);
    std::unique_ptr<Profile>& profile = profiles_.at(index);
    if (!profile) {
      const EmbeddedProfile& embedded = embedded_profiles()[index];
      Problems problems;
      auto read = read_profile(embedded.text, std::string(embedded.name), problems);
      ensure(read.has_value(), "profiles inside the program are sound");
      profile = std::make_unique<Profile>(std::move(*read));
    }
    return *profile;
  }

  static Shipped& instance() {
    static Shipped shipped;
    return shipped;
  }

 private:
  Shipped() : profiles_(embedded_profiles().size()) {}
  std::mutex mutex_;
  std::vector<std::unique_ptr<Profile>> profiles_;
};

/// How far apart two data sheets are: logs of computing and moving rates.
double sheet_distance(const DeviceFacts& a, const DeviceFacts& b) {
  const double compute = std::log(a.bf16_flops / b.bf16_flops);
  const double memory = std::log(a.memory_bandwidth_bytes_per_s / b.memory_bandwidth_bytes_per_s);
  return compute * compute + memory * memory;
}

}  // namespace

std::vector<std::string> shipped_profile_names() {
  std::vector<std::string> names;
  for (const EmbeddedProfile& embedded : embedded_profiles()) names.emplace_back(embedded.name);
  return names;
}

std::string_view shipped_profile_text(const std::string& name) {
  for (const EmbeddedProfile& embedded : embedded_profiles())
    if (embedded.name == name) return embedded.text;
  ensure(false, "a shipped profile is asked for by its name");
  return {};
}

const Profile* shipped_profile(const std::string& gpu, const std::string& stack) {
  const auto& embedded = embedded_profiles();
  for (std::size_t i = 0; i < embedded.size(); ++i)
    if (embedded[i].name == gpu + "." + stack) return &Shipped::instance().at(i);
  return nullptr;
}

const Profile* nearest_profile(const DeviceFacts& device, const std::string& stack) {
  if (const Profile* own = shipped_profile(device.gpu, stack)) return own;
  if (device.bf16_flops <= 0) return nullptr;
  const Profile* nearest = nullptr;
  for (std::size_t i = 0; i < embedded_profiles().size(); ++i) {
    const Profile& profile = Shipped::instance().at(i);
    if (profile.stack != stack || profile.device.compute_capability != device.compute_capability)
      continue;
    if (!nearest ||
        sheet_distance(profile.device, device) < sheet_distance(nearest->device, device))
      nearest = &profile;
  }
  return nearest;
}

std::unique_ptr<CostModel> device_cost_model(const DeviceFacts& device, const std::string& stack,
                                             ClockRegime clocks) {
  const Profile* profile = nearest_profile(device, stack);
  if (!profile) return roofline_cost_model(device);
  return profile_cost_model(*profile, device, clocks);
}

}  // namespace rehearse
