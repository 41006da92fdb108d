// The format profile/1: field tables of the structs in profile.h. Knots are rows of plain numbers,
// [shape …, value], since there are hundreds.

#include "kernels/profile_file.h"

#include <algorithm>
#include <cmath>

#include "kernels/profile_tables.h"

namespace rehearse {
namespace {

void check_products(const std::vector<GemmFit>& fits, const char* key, ObjectCheck& check) {
  for (std::size_t i = 0; i < fits.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (fits[i].precision == fits[j].precision)
        check.problem(key, "two fits of products have the same precision", "keep one of them");
}

void check_profile(Profile& profile, ObjectCheck& check) {
  check_products(profile.gemm, "gemm", check);
  check_products(profile.expert_gemm, "expert_gemm", check);
  for (std::size_t i = 0; i < profile.attention.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (profile.attention[i].precision == profile.attention[j].precision)
        check.problem("attention", "two fits of attention have the same precision",
                      "keep one of them");
  for (std::size_t i = 0; i < profile.collectives.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (profile.collectives[i].collective == profile.collectives[j].collective &&
          profile.collectives[i].ranks == profile.collectives[j].ranks)
        check.problem("collectives", "two curves are of the same collective among as many ranks",
                      "keep one of them");
  profile.device.gpu = profile.gpu;
}

const FieldTable<CopyTime>& copy_time_table() {
  static const FieldTable<CopyTime> table =
      FieldTable<CopyTime>("copy", "A copy within the device's own memory")
          .number("bytes", &CopyTime::bytes, {1, 1e15}, "read and written together")
          .required()
          .number("time_s", &CopyTime::seconds, {1e-9, 1e6}, "measured time")
          .required();
  return table;
}

const FieldTable<Profile>& profile_table() {
  static const FieldTable<Profile> table =
      FieldTable<Profile>("profile/1", "What operators cost on one GPU with one software stack")
          .constant("schema", "profile/1", "name of the format")
          .required()
          .text("gpu", &Profile::gpu, "catalogue id of the GPU")
          .required()
          .text("stack", &Profile::stack, "the software whose kernels were measured")
          .required()
          .text("made_by", &Profile::made_by, "program and version that made the profile")
          .texts("sources", &Profile::sources, {0, 1000}, "tables it was fitted to")
          .object("device", &Profile::device, device_facts_table(), "the GPU's data sheet")
          .required()
          .object("sustained_rate", &Profile::sustained_rate, sustained_table(),
                  "rate of computing in a long step, relative to the bursts measured")
          .object("launch", &Profile::launch_s, launch_table(), "host time of issuing an operator")
          .object("overlap", &Profile::overlap_slowdown, overlap_table(),
                  "time of kernels beside a running collective")
          .object("memory_overheads", &Profile::overheads, memory_overheads_table(),
                  "device memory beside tensors; what is not stated is as usual")
          .omit_default()
          .objects("gemm", &Profile::gemm, gemm_fit_table(), {0, 16}, "matrix products")
          .objects("expert_gemm", &Profile::expert_gemm, gemm_fit_table(), {0, 16},
                   "products of experts in one grouped kernel; none: as other products")
          .omit_default()
          .objects("attention", &Profile::attention, attention_fit_table(), {0, 16},
                   "flash attention")
          .objects("memory", &Profile::memory, memory_fit_table(), {0, 1000},
                   "operators bound by memory")
          .objects("samples", &Profile::samples, profile_sample_table(), {0, 1e6},
                   "operators that are priced as they were measured")
          .omit_default()
          .objects("collectives", &Profile::collectives, collective_curve_table(), {0, 1000},
                   "collectives inside a node that take what was measured")
          .omit_default()
          .objects("copies", &Profile::copies, copy_time_table(), {0, 1000},
                   "copies within the device's memory, which operators are compared with")
          .omit_default()
          .check(check_profile);
  return table;
}

}  // namespace

std::optional<Profile> read_profile(std::string_view text, const std::string& path,
                                    Problems& problems) {
  const JsonLimits limits{.bytes = std::size_t{256} << 20, .values = 20'000'000, .depth = 16};
  const std::size_t before = problems.count();
  const JsonDocument document = parse_json(text, path, problems, limits);
  Profile profile;
  Reading reading(document.source, problems);
  if (document.parsed) profile_table().read(document.root, reading, profile);
  if (problems.count() > before) return std::nullopt;
  return profile;
}

std::string write_profile(const Profile& profile) {
  return to_text(profile_table().to_json(profile));
}

}  // namespace rehearse
