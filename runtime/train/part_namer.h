#pragma once
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/layer.h"
#include "kernels/ops/operator_call.h"
#include "plan/plan_file.h"
#include "plan/schedule.h"
#include "plan/timeline.h"
#include "runtime/communicator.h"
#include "runtime/train/parameter_store.h"

namespace rehearse {

/// Gives what a real run does the names that the simulation has for it, by walking the very lists
/// of operators (kernels/layer.h) that the simulation prices: each call takes the next operator of
/// its sort in the list of the unit and pass at hand.
class PartNamer {
 public:
  explicit PartNamer(const PlanFile& file);

  void begin_action(ActionKind kind) { action_ = kind; }
  /// `index`: the layer's place in its chunk, which decides whether it recomputes.
  void begin_unit(ModelUnit unit, int layer, int index);
  /// What follows belongs to the step as a whole: clearing gradients, their norm, the update.
  void leave_units() { open_ = nullptr; }

  struct Part {
    std::string label;
    int item = -1;  ///< of `operators()`; −1 outside of units
  };
  Part name(const OperatorCall& call);

  /// The operators of the list of the unit and pass at hand; none outside of units.
  std::vector<Operator> operators() const;

  struct TransferName {
    Stream stream = Stream::Data;
    std::string label;
  };
  /// Nothing for what the simulation does not know (the loss, for people).
  std::optional<TransferName> name(const TransferNote& note) const;

 private:
  enum class Sort : std::uint8_t {
    Product,
    BiasSum,
    Norm,
    Residual,
    Attention,
    Joined,
    Rotation,
    Activation,
    Embedding,
    CrossEntropy,
    None
  };
  struct Item {
    Sort sort = Sort::None;
    Operator op;
    std::string label;
    bool is_taken = false;
  };
  using Key = std::tuple<ModelUnit, ActionKind, int>;  ///< the last: what tells layers apart

  static Sort sort_of(const Operator& op);
  static Sort sort_of(const OperatorCall& call);
  std::vector<Item> items_of(ModelUnit unit, int layer, int index) const;
  const Item* take(Sort sort);
  std::string step_part(const OperatorCall& call) const;

  LayerShape shape_;
  ActionKind action_ = ActionKind::Forward;
  std::map<Key, std::vector<Item>> known_;
  std::vector<Item>* open_ = nullptr;
};

/// A layer's place in its chunk; 0 for other units.
int place_in_chunk(const ParameterStore& store, const Unit& unit);

}  // namespace rehearse
