#pragma once
// Inside of strategies/lower.cpp and its parts; the interface is strategies/lower.h.
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "plan/rank_map.h"
#include "strategies/attention_load.h"
#include "strategies/collective_cost.h"
#include "strategies/collective_flows.h"
#include "strategies/flow_folding.h"
#include "strategies/host_rates.h"
#include "strategies/lower.h"
#include "strategies/replica_classes.h"
#include "strategies/stage_program.h"
#include "strategies/state_shares.h"

namespace rehearse {

/// A run of items without a stop, or one collective of a layer that is a task of its own.
struct Piece {
  bool is_collective = false;
  bool beside = false;  ///< items that run beside the collective before them
  CommGroup group = CommGroup::Tensor;
  std::int32_t segment = -1;
  CollectiveKind collective = CollectiveKind::AllReduce;
  double bytes = 0;
  double hidden_s = 0;  ///< of a collective: beside the next piece
  double late_s = 0;    ///< of a collective: waiting for the latest of its ranks
  std::int32_t label = 0;
  std::int32_t first_bucket = 0;  ///< the bucket of its items (pieces are cut between buckets)
  std::int32_t layer = -1;        ///< likewise, where pieces are cut between layers
};

/// Which of a chunk's items an action executes, and where it is cut.
struct PieceKey {
  std::int32_t chunk = 0;    ///< of the model: 0 … pp·v − 1
  std::int32_t context = 0;  ///< context rank, where these differ
  ActionKind action = ActionKind::Forward;
  bool cut_at_buckets = false;
  auto operator<=>(const PieceKey&) const = default;
};

/// A stage's work on one bucket (with ZeRO-3: layer) in one action, in the order of the step.
struct BucketVisit {
  std::size_t action = 0;
  std::int32_t chunk = 0, bucket = 0;
  ActionKind kind = ActionKind::Forward;
  bool completes = false;                 ///< the last gradients of the step for the bucket
  std::vector<std::int32_t> first, last;  ///< tasks, by device
};

/// A stage's work on one layer in one action, in the order of the step; layer −1: embedding, head.
struct LayerVisit {
  std::int32_t layer = -1, micro_batch = 0, chunk = 0;
  ActionKind kind = ActionKind::Forward;
  std::vector<std::int32_t> first, last;  ///< tasks, by device
};

/// A copy between a device and its host's memory that is still to be made into a task.
struct HostCopy {
  bool from_host = false;
  double seconds = 0, bytes = 0;
  const char* label = "";
  std::int32_t order = 0;                   ///< task whose place in the step is the copy's
  std::vector<std::int32_t> after, before;  ///< tasks
  std::int32_t after_copy = -1;             ///< index of another copy
};

/// What an action's tasks are told apart by.
struct ActionAt {
  std::size_t index = 0;  ///< in the stage's order
  std::int32_t label = 0, chunk = 0, micro_batch = 0;
  bool completes = false;  ///< the last gradients of the step for its chunk
  bool opens = false;      ///< the first forward of the step on its chunk
  bool shares = false;     ///< weights or gradients are shared out bucket by bucket
};

/// Tasks that whatever comes next on a device waits for: the last computation, the collective
/// after it, or both where they ran beside each other; −1: none.
struct Awaited {
  std::int32_t task = -1, beside = -1;
};

/// An action on its way into tasks.
struct ActionInHand {
  ActionAt at;
  bool signals = false;  ///< buckets complete one by one
  bool waits = false;    ///< buckets are waited for one by one
  /// Pieces of each context device, or one list where all are alike: they have the same
  /// collectives in the same order. `next`: by context device.
  std::vector<const std::vector<Piece>*> lists;
  std::vector<std::size_t> next;
  std::vector<Awaited> awaited, beside;  ///< its own, as those of the unit
  bool is_done() const { return next.back() == lists.back()->size(); }
};

/// Transfers of one direction between two stages: what is asked for again and again, and the last
/// one made; both by device.
struct TransferLine {
  std::vector<Task> prototypes;
  std::vector<std::int32_t> tails;
};

/// The place of a rank among those that share a replica's stage.
struct InnerRank {
  int tensor = 0, context = 0;
};

/// A stage of a simulated replica: its devices, and the tasks made for them so far. Devices are
/// the tensor ranks of the first context rank, then of the next; folded ranks share one.
struct StageUnit {
  int replica_class = 0, stage = 0;
  std::int32_t first_device = 0;
  std::size_t kind = 0;                  ///< index into Lowering::kinds_
  std::vector<std::int32_t> first_task;  ///< by device: first compute of the step
  std::vector<std::int32_t> tail;        ///< by device: last compute
  std::vector<Awaited> awaited;          ///< by device: what the next task waits for
  std::vector<Awaited> beside;  ///< by device: what the last collective waited for on the device
  bool takes_turns = false;     ///< joined actions go piece by piece
  std::vector<std::int32_t> action_first, action_last;  ///< [action · devices + d]
  /// Task after which a chunk's bucket is complete: [chunk][bucket · devices + d].
  std::vector<std::vector<std::int32_t>> bucket_ready;
  /// First task of the step that reads a bucket's parameters; same layout, −1 where none.
  std::vector<std::vector<std::int32_t>> bucket_reader;
  std::vector<std::pair<int, int>> bucket_order;  ///< (chunk, bucket) as completed
  std::vector<BucketVisit> visits;                ///< of actions cut at buckets, in order
  std::vector<std::int32_t> last_reduction;       ///< by device; −1: none of ZeRO-2, 3
  /// Prototypes of what is asked for again and again; the transfers are one a device.
  struct LayerTask {
    CommGroup group;
    int member;  ///< see Lowering::layer_devices
    double hidden_s, late_s;
    Task task;
    std::vector<int> devices;  ///< of the unit, that take part
  };
  std::vector<LayerTask> layer_tasks;
  std::vector<Task> expert_tasks;  ///< prototypes of dispatches and combines
  int expert_calls = 0;            ///< dispatches and combines so far
  std::int32_t expert_tail = -1;   ///< the last of them
  std::map<std::pair<bool, int>, TransferLine> transfers;  ///< by (forward?, receiving stage)
  std::vector<LayerVisit> layer_visits;                    ///< of actions cut at layers, in order
  std::map<std::pair<std::size_t, int>, std::int32_t> visit_reduction;  ///< by (visit, device)
  /// Last task of the streams to, on and from the host; by device.
  std::map<std::pair<Stream, int>, std::int32_t> host_tails;
  /// By device, of stages that hold copies of the same parameters; empty elsewhere.
  std::vector<std::int32_t> copy_reduction;
};

/// A rank that holds a copy of what others hold: data and context ranks do.
struct DataRank {
  int replica = 0, context = 0;
};

/// Ranks that reduce or gather together, data ranks with all of their context ranks; their
/// collectives run one after the other on each stream. Folded, it stands for all groups of that
/// kind at once.
struct DataTeam {
  std::string name;                          ///< tells its patterns from others'
  std::vector<int> classes;                  ///< replica classes that take part
  std::vector<std::vector<DataRank>> ranks;  ///< of each group it stands for, in rank order
  std::vector<std::int32_t> devices;         ///< of the classes
  std::vector<GpuId> gpus;                   ///< of the first group
  bool is_local = true;
  std::int32_t tail = -1, gather_tail = -1;  ///< of the Data and of the Parameter stream
};

/// Programs of all chunks for one kind of tensor group: GPU type and nodes it spans.
struct UnitKind {
  int group = 0;         ///< node group of its (slowest) GPU
  bool is_local = true;  ///< the tensor group lies in one node
  /// By piece of the model, of the first context rank, then of the next where they differ.
  std::vector<ChunkProgram> chunks;
  std::map<PieceKey, std::vector<Piece>> pieces;
};

class Lowering {
 public:
  Lowering(const LoweringInput& input, const LoweringOptions& options);
  LoweredStep run();

 private:
  // lower.cpp: who is simulated
  void make_devices();
  std::size_t unit_kind(int replica_class, int stage);

  // lower_slowest.cpp: how fast each device is, and whose micro-batches it works on
  void set_speeds();
  void set_speed(const StageUnit& unit, int d, const std::vector<int>& slowest);
  double speed_of(GpuId gpu) const;
  double lowest_speed(const std::vector<int>& replicas, int stage, int d) const;
  std::vector<int> in_step_with(int replica) const;
  std::vector<int> slowest_members(int replica_class);
  double replica_time_s(int replica_class, const std::vector<int>& replicas);
  /// Seconds of computation of a stage's micro-batch at the usual speed.
  struct MicroBatchWork {
    double seconds = 0, per_load_s = 0;
  };
  MicroBatchWork work_of(const StageUnit& unit, int variant) const;
  double stage_time_s(const StageUnit& unit, const std::vector<int>& replicas,
                      const std::vector<double>& loads) const;
  std::vector<double> heaviest_loads(const std::vector<int>& replicas) const;
  double sum_of(const std::vector<double>& loads, int variant) const;
  int variant_of(int d) const { return context_variants() > 1 ? d / tensor_devices_ : 0; }
  void state_documents();
  void state_spread();
  void make_programs(UnitKind& kind, int replica_class, int stage);
  ChunkExtent extent_of(int chunk) const;
  const std::vector<Piece>& pieces(StageUnit& unit, const PieceKey& key);
  std::vector<ChunkItem> items_of(const StageUnit& unit, const PieceKey& key) const;
  void overlap_tensor_collectives(const StageUnit& unit, std::vector<ChunkItem>& items) const;
  std::vector<GpuId> tensor_group(int replica, int context, int stage) const;
  std::vector<GpuId> context_group(int replica, int tensor, int stage) const;
  /// Tensor (context) groups of some replicas at a stage: those of all context (tensor) ranks that
  /// a context (tensor) device stands for. Of a grid of tensor ranks all rows or columns, or the
  /// `part`-th of each.
  std::vector<std::vector<GpuId>> tensor_groups(const std::vector<int>& replicas, int context,
                                                int stage, CommGroup group = CommGroup::Tensor,
                                                int part = -1) const;
  std::vector<std::vector<GpuId>> context_groups(const std::vector<int>& replicas, int t,
                                                 int stage) const;
  void add_totals();
  void state_assumptions();
  void state_arithmetic();
  void state_data_assumptions();

  // lower_actions.cpp: what each stage computes
  void emit_actions(StageUnit& unit);
  void join_actions(StageUnit& unit);
  ActionInHand take_up(StageUnit& unit, std::size_t index, bool completes, bool opens);
  const Piece* emit_computes(StageUnit& unit, ActionInHand& hand);
  void emit_collective(StageUnit& unit, const ActionInHand& hand, const Piece& piece);
  void put_down(StageUnit& unit, const ActionInHand& hand);
  void emit_hands(StageUnit& unit, std::vector<ActionInHand>& hands);
  void note(StageUnit& unit, const ActionAt& at, int d, const Piece& piece, std::int32_t task);
  void visit(StageUnit& unit, const ActionAt& at, int d, std::int32_t bucket, std::int32_t task);
  std::int32_t add_compute(StageUnit& unit, int d, const Piece& piece, std::int32_t label,
                           std::int32_t chunk, std::int32_t micro_batch);
  void add_layer_collective(StageUnit& unit, const ActionAt& at, const Piece& piece, int member);
  std::vector<int> layer_devices(CommGroup group, int member) const;
  /// Rows or columns of a grid of tensor ranks that are simulated one by one; else 1.
  int parts_of(CommGroup group) const;
  Task layer_task(StageUnit& unit, const Piece& piece, int member);
  Task transfer_task(const StageUnit& from, const StageUnit& to, int d, bool forward);

  // lower_context.cpp: what context ranks send each other
  Task context_task(const StageUnit& unit, const Piece& piece, int t);
  void time_ring_hop(Task& task, const std::vector<std::vector<GpuId>>& groups,
                     const std::string& name);
  /// The order of work of a class's replicas: those with more micro-batches have another.
  const Schedule& schedule_of(int replica_class) const {
    return *class_schedules_[static_cast<std::size_t>(replica_class)];
  }
  const std::vector<Action>& actions_of(const StageUnit& unit) const {
    return schedule_of(unit.replica_class).actions[static_cast<std::size_t>(unit.stage)];
  }
  void make_schedules();
  void index_actions();
  std::size_t action_slot(const Schedule& schedule, const Action& action) const;
  void emit_transfers(StageUnit& unit);
  void emit_transfer(StageUnit& from, std::size_t action, StageUnit& to, std::size_t to_action);

  // lower_experts.cpp: dispatch, combine, and gradients of experts
  std::vector<std::vector<GpuId>> expert_ranks(int stage, int team) const;
  std::vector<int> expert_teams_of(const StageUnit& unit) const;
  void put_experts_on_network(const StageUnit& unit, const std::vector<GpuId>& group, Task& task);
  Task expert_task(const StageUnit& unit, const Piece& piece);
  void add_expert_collective(StageUnit& unit, const ActionAt& at, const Piece& piece);
  double expert_bucket_size(int stage, int chunk, int bucket) const;
  std::vector<DataTeam> expert_data_teams(int stage, int t) const;
  std::vector<DataTeam> expert_replica_teams(int stage, int t) const;
  void add_class(DataTeam& team, int replica) const;
  void finish_teams(int stage, int t, const char* name, std::vector<DataTeam>& teams) const;

  // lower_step_end.cpp: gradients, optimizer, parameters
  void emit_gradient_reductions();
  void emit_copy_reductions();
  void add_copy_reduction(int first_stage, int second_stage, double bytes, const char* label);
  void emit_step_end();
  void make_data_teams();
  /// Teams of `size` consecutive data ranks (or of every size-th, `strided`) at a stage.
  std::vector<DataTeam> data_teams(int stage, int t, int size, bool strided) const;
  std::vector<std::vector<DataRank>> team_groups(int stage, int t, int size, int index,
                                                 bool strided) const;
  DataTeam& whole_team(int stage, int t) {
    return whole_teams_[static_cast<std::size_t>(stage * tensor_devices_ + t)];
  }
  struct TeamCall {
    CollectiveKind kind;
    CommKind comm;
    Stream stream;
    double bytes;
    const char* label;
    bool overlaps;
  };
  std::int32_t add_team_collective(int stage, int t, DataTeam& team, const TeamCall& call);
  /// Who shares out experts, and with HSDP who sums what each then has.
  struct ExpertTeams {
    std::vector<DataTeam> sharing, replicas;
  };
  void reduce_expert_shards(int stage, int t, std::size_t visit_index, ExpertTeams& experts,
                            std::map<int, std::int32_t>& reduced);
  void reduce_expert_gradients(int stage, int t, int chunk, int bucket,
                               std::vector<DataTeam>& teams, const TeamCall& like);
  /// Parameters of a bucket that all data ranks have copies of.
  double bucket_size(int stage, int chunk, int bucket) const;
  void gather_parameters(int stage, int t, DataTeam& team, bool experts);

  // lower_offload.cpp: what lies in host memory
  struct HostCall {
    Stream stream;
    double seconds, bytes;
    const char* label;
  };
  HostRates host_rates_of(const StageUnit& unit) const;
  std::int32_t add_host_task(StageUnit& unit, int d, const HostCall& call);
  void visit_layer(StageUnit& unit, const ActionAt& at, int d, std::int32_t layer,
                   std::int32_t task);
  void plan_activation_copies(StageUnit& unit, int d, std::vector<HostCopy>& copies);
  void plan_gradient_copies(StageUnit& unit, int d, std::vector<HostCopy>& copies);
  void emit_offload();
  double saved_bytes(const StageUnit& unit, int chunk, std::int32_t layer) const;
  std::int32_t add_host_norm(StageUnit& unit, int d);
  std::int32_t add_host_update(StageUnit& unit, int d, std::int32_t after);
  double owned_parameters(const StageUnit& unit) const;
  double stage_parameters(const StageUnit& unit) const;

  // lower_updates.cpp: parameter servers, local SGD
  bool has_servers() const {
    return plan_.updates.aggregation == Aggregation::ParameterServer && plan_.dp > 1;
  }
  bool averages_weights() const { return plan_.updates.aggregation == Aggregation::LocalSgd; }
  GpuId server_gpu(int server) const;
  double server_bytes_per_s() const;
  std::vector<DataTeam> server_teams(int stage, int t);
  std::int32_t add_server_transfer(int stage, int t, const DataTeam& team, bool push, double bytes);
  std::int32_t add_server_work(const DataTeam& team, const char* label, double seconds);
  void emit_server_round(int stage, int t, const DataTeam& team);
  void emit_server_step_end();
  void bound_staleness(const std::vector<std::int32_t>& ends);
  void emit_weight_averages();
  void state_update_assumptions();

  // lower_sharding.cpp: ZeRO-2, ZeRO-3, HSDP
  void emit_sharded_traffic();
  void emit_shard_gathers(int stage, int t, DataTeam& team, bool experts);
  /// Devices of a class at a stage that hold the t-th part of the weights.
  std::vector<int> lane(int t) const;
  void emit_shard_reductions(int stage, int t, std::vector<DataTeam>& shards,
                             std::vector<DataTeam>& replicas, ExpertTeams& of_experts);
  void wrap_gathers();
  double parameter_bytes() const;
  /// What a gather of a bucket's weights moves: of experts that fewer ranks have copies of, or of
  /// all others.
  double gather_bytes(int stage, int chunk, int bucket, bool experts) const;
  std::int32_t add_ring_steps(int stage, int t, const DataTeam& team, CollectiveKind kind,
                              double latency_s, std::int32_t begin);
  std::vector<PhysicalFlow> ring_edge_flows(int stage, int t, const DataTeam& team,
                                            std::size_t edge) const;
  std::vector<std::int32_t> emit_gradient_norm();
  void emit_parameter_gathers();
  std::int32_t add_control(const std::vector<std::int32_t>& devices,
                           const std::vector<GpuId>& gpus);
  std::int32_t add_step_compute(StageUnit& unit, int d, std::int32_t segment, const char* label);
  std::vector<SegmentItem> optimizer_items(const StageUnit& unit, bool norm);

  // shared
  StageUnit& unit(int replica_class, int stage) {
    return units_[static_cast<std::size_t>(replica_class * plan_.pp + stage)];
  }
  std::int32_t device(const StageUnit& u, int d) const { return u.first_device + d; }
  std::int32_t add_task(const Task& task);
  std::int32_t add_group(const std::vector<std::int32_t>& devices);
  /// Index of the pattern with this name; made by `flows()` when first asked for.
  template <class MakeFlows>
  std::int32_t pattern(const std::string& name, MakeFlows flows);
  /// Latency before the flows of a collective of one group, alone on the network: NCCL's, or what
  /// is missing between its expectation and the time of the flows (small messages do not fill
  /// the links, and NVLS is bound inside the node).
  double latency_before_flows(const std::string& name, const std::vector<GpuId>& group,
                              CollectiveKind kind, const CollectiveChoice& choice, double bytes);
  /// Seconds a byte of a tensor collective on `choice`'s algorithm in all groups that are
  /// simulated together.
  double tensor_seconds(const std::vector<int>& replicas, int stage, const LayerItem& item);
  /// Latency, and the flows of all groups, of a collective that spans nodes.
  void put_on_network(Task& task, const std::string& name,
                      const std::vector<std::vector<GpuId>>& groups, CollectiveKind kind);
  bool network_is_quiet(const PieceKey& key) const;
  /// Of these ranks, with the collectives that were measured on the first one's kind of node.
  CommunicatorShape communicator(const std::vector<GpuId>& ranks) const;
  GpuId gpu(const InnerRank& inner, int replica, int stage) const {
    return ranks_.gpu(ranks_.rank({inner.tensor, inner.context, replica, stage}));
  }
  /// The GPUs of some data ranks at one stage and tensor coordinate.
  std::vector<GpuId> gpus_of(int stage, int tensor, const std::vector<DataRank>& ranks) const;
  /// Tensor coordinates that tensor device t stands for, context coordinates of context device c.
  std::vector<int> tensor_members(int t) const;
  std::vector<int> context_members(int c) const;
  /// The ranks of a replica's stage that device d stands for.
  std::vector<InnerRank> inner_ranks(int d) const;
  int data_ranks() const { return rehearse::data_ranks(plan_); }
  int sharing_ranks() const { return rehearse::sharing_ranks(plan_); }
  int context_variants() const { return plan_.context_balanced ? 1 : context_devices_; }
  double gradient_bytes() const { return bytes_of(plan_.gradient_precision); }
  int last_chunk() const { return piece_count(in_.schedule) - 1; }
  /// Of one chunk of a stage, the programs' index: its piece of the model.
  std::size_t program_of(int stage, int chunk) const {
    return static_cast<std::size_t>(piece_of(in_.schedule, stage, chunk));
  }

  const LoweringInput& in_;
  const Plan& plan_;
  const Cluster& cluster_;
  LoweringOptions options_;
  RankMap ranks_;
  ReplicaClasses classes_;
  int tensor_devices_ = 1, context_devices_ = 1;  ///< that a replica's stage is simulated with
  int unit_devices_ = 1;                          ///< their product
  LayerShape shape_;
  AttentionLoad load_;
  std::vector<std::vector<double>> class_loads_;  ///< of the simulated replica, as AttentionLoad's
  std::vector<int> chunk_layers_;
  std::vector<int> group_of_node_;
  double bucket_parameters_ = 0;

  LoweredStep out_;
  EdgeList edges_;
  Labels labels_;
  std::vector<StageUnit> units_;
  std::vector<UnitKind> kinds_;
  std::map<std::tuple<int, bool, int>, std::size_t> kind_index_;
  std::vector<PhysicalPattern> patterns_;
  std::map<std::string, std::int32_t> pattern_index_;
  std::map<std::string, double> idle_seconds_per_byte_;  ///< by collective and group
  std::map<std::vector<std::int32_t>, std::int32_t> group_index_;
  std::map<int, Schedule> uneven_schedules_;      ///< by micro-batches, beside the usual one
  std::vector<const Schedule*> class_schedules_;  ///< by replica class
  /// By micro-batches: [stage][action_slot].
  std::map<int, std::vector<std::vector<std::size_t>>> action_index_;
  std::vector<DataTeam> whole_teams_;  ///< [stage · tensor devices + t]
  /// First gathers of the step, that wait for the last step's update: ((unit, device), task).
  std::vector<std::pair<std::pair<std::size_t, int>, std::int32_t>> first_gathers_;
  std::map<std::tuple<int, int, int>, std::int32_t> last_replica_reduction_;  ///< (stage, t, class)
  /// Dispatches and combines by (stage, team, how many came before).
  std::map<std::tuple<int, int, int>, std::int32_t> expert_calls_;
  /// Last push and last pull of a (replica class, stage, tensor device).
  std::map<std::tuple<int, int, int>, std::pair<std::int32_t, std::int32_t>> server_ends_;
  std::int32_t empty_segment_ = -1;
};

template <class MakeFlows>
std::int32_t Lowering::pattern(const std::string& name, MakeFlows flows) {
  const auto [at, is_new] =
      pattern_index_.try_emplace(name, static_cast<std::int32_t>(patterns_.size()));
  if (is_new) patterns_.push_back({flows()});
  return at->second;
}

}  // namespace rehearse
