#include "app/train_prediction.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "app/command_line.h"
#include "app/exit_code.h"
#include "app/output.h"
#include "plan/json_document.h"
#include "plan/json_value.h"
#include "plan/plan_file.h"
#include "plan/units.h"
#include "runtime/child_process.h"

namespace rehearse {
namespace {

namespace fs = std::filesystem;

// Steps of small models repeat often enough in this time, those of large ones three times.
constexpr const char* kPlanTime = "10s";
// The simulation lets 85 % of a PCIe link's nominal rate be payload (topologies/); what was
// measured is payload.
constexpr double kPayloadShare = 0.85;

class ScratchFolder {
 public:
  ScratchFolder()
      : path_(fs::temp_directory_path() / ("rehearse-predict-" + std::to_string(getpid()))) {
    fs::create_directories(path_);
  }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::string file(const char* name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

/// The run itself will say what is wrong.
struct CannotRun {};

/// Throws std::runtime_error with the last line that the child wrote, where it fails, and CannotRun
/// where it says that the plan cannot be run here.
std::string output_of(const std::vector<std::string>& command) {
  const ChildResult result = run_child(command);
  if (result.exit_code == 0) return result.out;
  if (result.exit_code == static_cast<int>(ExitCode::Infeasible)) throw CannotRun();
  std::string last = result.err;
  while (last.ends_with('\n')) last.pop_back();
  last.erase(0, last.rfind('\n') + 1);
  throw std::runtime_error(last);
}

JsonValue parsed(const std::string& text, const std::string& path) {
  Problems problems;
  JsonDocument document = parse_json(text, path, problems);
  if (!problems.empty()) throw std::runtime_error(path + " is no JSON");
  return std::move(document.root);
}

/// Seconds and bytes/s between two ranks of this machine, measured into the profile too.
double payload_rate(const std::string& device_program, const std::string& profile) {
  setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
  setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 1);
  const std::string links = output_of({"/usr/bin/env", "mpirun", "-n", "2", "--bind-to", "none",
                                       device_program, "links", "--json", "--into", profile});
  const JsonValue root = parsed(links, "links");
  const JsonValue* rate = root.find("bandwidth_bytes_per_s");
  if (rate == nullptr) throw std::runtime_error("links told no rate");
  return rate->number;
}

/// This machine as a node of cores. Rates of a core serve the MFU only: prices come from the
/// profile.
JsonValue machine_of(int ranks, double payload_bytes_per_s) {
  JsonValue core = JsonValue::object();
  core.add("id", JsonValue::of("cpu"));
  core.add("name", JsonValue::of("a share of this machine's cores"));
  core.add("memory", JsonValue::of("1 TB"));
  core.add("memory_bandwidth", JsonValue::of("10 GB/s"));
  core.add("fp32_rate", JsonValue::of("50 GFLOP/s"));
  core.add("bf16_rate", JsonValue::of("50 GFLOP/s"));
  core.add("pcie_bandwidth", JsonValue::of(payload_bytes_per_s / kPayloadShare));
  JsonValue node = JsonValue::object();
  node.add("id", JsonValue::of("here"));
  node.add("name", JsonValue::of("this machine"));
  node.add("gpus", JsonValue::of(ranks));
  node.add("nvswitch", JsonValue::of(false));
  node.add("nics", JsonValue::of(0));
  node.add("gpu", std::move(core));
  JsonValue cluster = JsonValue::object();
  cluster.add("nodes", JsonValue::of(1));
  cluster.add("node", std::move(node));
  return cluster;
}

/// The plan as this program's runner does it, whatever framework it was made for.
JsonValue with_framework(const JsonValue& plan) {
  JsonValue own = JsonValue::object();
  for (const JsonMember& member : plan.members)
    if (member.key != "framework") own.add(member.key, member.value);
  own.add("framework", JsonValue::of("rehearse"));
  return own;
}

double simulated_step_s(const ScratchFolder& folder, const JsonValue& plan, const PlanFile& file,
                        double rate) {
  JsonValue scenario = JsonValue::object();
  scenario.add("schema", JsonValue::of("scenario/1"));
  scenario.add("model", *plan.find("model"));
  scenario.add("cluster", machine_of(world_size(file.plan), rate));
  JsonValue profiles = JsonValue::list();
  profiles.items.push_back(JsonValue::of("cpu.json"));
  scenario.add("profiles", std::move(profiles));
  JsonValue workload = *plan.find("workload");
  if (workload.find("kind") == nullptr) workload.add("kind", JsonValue::of("training"));
  scenario.add("workload", std::move(workload));
  JsonValue layout = with_framework(*plan.find("plan"));
  if (layout.find("layer_split") == nullptr) layout.add("layer_split", *plan.find("layer_split"));
  scenario.add("plan", std::move(layout));
  write_result(folder.file("scenario.json"), to_text(scenario), true);
  output_of({sibling_program("rehearse"), "run", folder.file("scenario.json"), "--quiet",
             "--plan-out", folder.file("plan.json"), "-o", folder.file("report.txt")});
  const std::string made = folder.file("plan.json");
  Problems problems;
  const auto predicted = read_plan_file(read_whole(made), made, problems);
  if (!predicted) throw std::runtime_error("the simulated plan cannot be read");
  return predicted->step_time_s;
}

/// Threads of a rank, as rehearse-device chooses them.
int threads_of(const TrainCommandOptions& options, int ranks) {
  if (!options.threads.empty()) return std::max(1, std::atoi(options.threads.c_str()));
  const auto cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::max(1, cores / ranks);
}

/// As rehearse-device decides it: GPUs where asked for, or where each rank can have one.
bool trains_on_gpus(const TrainCommandOptions& options, int ranks) {
  if (!options.device.empty()) return options.device.starts_with("cuda");
  const ChildResult doctor = run_child({sibling_program("rehearse-device"), "doctor", "--json"});
  if (doctor.exit_code != 0) return false;
  const JsonValue facts = parsed(doctor.out, "doctor");
  const JsonValue *cuda = facts.find("cuda"), *nccl = facts.find("nccl");
  const JsonValue* gpus = cuda == nullptr ? nullptr : cuda->find("gpus");
  if (gpus == nullptr || gpus->items.size() < static_cast<std::size_t>(ranks)) return false;
  const JsonValue* built_in = nccl == nullptr ? nullptr : nccl->find("built_in");
  return ranks == 1 || (built_in != nullptr && built_in->boolean);
}

}  // namespace

std::optional<double> predict_step_here(const TrainCommandOptions& options) {
  if (options.no_predict || options.resume) return std::nullopt;
  Problems problems;
  const std::string text = read_whole(options.plan);
  const auto file = read_plan_file(text, options.plan, problems);
  if (!file || file->step_time_s > 0) return std::nullopt;  // what is wrong, the run itself says
  const int ranks = world_size(file->plan);
  if (trains_on_gpus(options, ranks)) {
    note(
        "the plan says no step time, and nothing is predicted for GPUs that are not measured: a "
        "scenario with this GPU's profile (rehearse profile) and --plan-out makes a plan that "
        "does");
    return std::nullopt;
  }
  const int threads = threads_of(options, ranks);
  note("the plan says no step time: measuring its operators for some " + std::string(kPlanTime) +
       (ranks > 1 ? ", then messages," : "") + " to predict it (--no-predict leaves that out)");
  try {
    const ScratchFolder folder;
    const std::string device = sibling_program("rehearse-device");
    const std::string profile = folder.file("cpu.json");
    output_of({device, "profile", "--device", "cpu", "--threads", std::to_string(threads), "--plan",
               options.plan, "--budget", kPlanTime, "-o", profile, "--force"});
    // A machine of one rank has no links that matter.
    const double rate = ranks > 1 ? payload_rate(device, profile) : 1e10;
    const double step_s = simulated_step_s(folder, parsed(text, options.plan), *file, rate);
    note("a step is predicted to take " + format_seconds(step_s));
    return step_s;
  } catch (const CannotRun&) {
    return std::nullopt;
  } catch (const std::runtime_error& error) {
    note(std::string("nothing is predicted: ") + error.what());
    return std::nullopt;
  }
}

}  // namespace rehearse
