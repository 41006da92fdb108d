// What goes in and out of a trainer beside its steps: tensors, sums, counts.
#include <algorithm>
#include <cstring>

#include "plan/ensure.h"
#include "runtime/train/trainer.h"

namespace rehearse {

void Trainer::collect(const std::vector<OwnedPiece>& pieces, const PieceView& view,
                      const std::string& prefix, std::vector<TensorPart>& parts) {
  for (const OwnedPiece& piece : pieces) {
    const Parameter& parameter = store_->parameters()[static_cast<std::size_t>(piece.parameter)];
    std::vector<float> host(static_cast<std::size_t>(piece.elements));
    device_.download(host.data(), view(piece).data, host.size() * sizeof(float));
    const std::int64_t skipped = piece.offset - parameter.offset;
    for (const NamedBox& whole : parameter.boxes)
      for (NamedBox& box : boxes_in_range(whole, skipped, skipped + piece.elements)) {
        const float* first = host.data() + (box.offset - skipped);
        const std::int64_t count = box.elements();
        box.name = prefix + box.name;
        parts.push_back({std::move(box), {first, first + count}});
      }
  }
}

void Trainer::finish() { sync_->await_all_weights(); }

std::vector<TensorPart> Trainer::tensors(TensorKind kind) {
  sync_->await_all_weights();
  std::vector<TensorPart> parts;
  collect(
      store_->owned(),
      [&](const OwnedPiece& piece) {
        return kind == TensorKind::Weight ? store_->master(piece) : store_->owned_gradient(piece);
      },
      "", parts);
  return parts;
}

std::vector<TensorPart> Trainer::collect_state(const std::vector<OwnedPiece>& pieces) {
  sync_->await_all_weights();
  std::vector<TensorPart> parts;
  const auto add = [&](const char* prefix, const PieceView& view) {
    collect(pieces, view, prefix, parts);
  };
  add("weight/", [&](const OwnedPiece& piece) { return store_->master(piece); });
  add("moment1/", [&](const OwnedPiece& piece) { return store_->first_moment(piece); });
  add("moment2/", [&](const OwnedPiece& piece) { return store_->second_moment(piece); });
  return parts;
}

std::vector<TensorPart> Trainer::state_parts() { return collect_state(store_->owned()); }

std::vector<TensorPart> Trainer::state_share() { return collect_state(written_pieces()); }

/// What ranks of the same stage and tensor rank hold alike is cut into as many ranges of equal
/// length; copies that another rank of the replica answers for are left to it.
std::vector<OwnedPiece> Trainer::written_pieces() const {
  std::vector<OwnedPiece> counted;
  std::int64_t total = 0;
  for (const OwnedPiece& piece : store_->owned()) {
    const bool is_copy = store_->parameters()[static_cast<std::size_t>(piece.parameter)].is_copy;
    if (is_copy || sync_->counted_elsewhere(piece.parameter)) continue;
    counted.push_back(piece);
    total += piece.elements;
  }
  if (store_->shares().count > 1) return counted;
  const std::int64_t holders = groups_->data->size(), place = groups_->data->rank();
  const std::int64_t begin = total * place / holders, end = total * (place + 1) / holders;
  std::vector<OwnedPiece> own;
  std::int64_t before = 0;  // elements of the pieces before
  for (const OwnedPiece& piece : counted) {
    const std::int64_t from = std::max(begin, before) - before;
    const std::int64_t to = std::min(end, before + piece.elements) - before;
    before += piece.elements;
    if (from < to)
      own.push_back({piece.parameter, piece.offset + from, to - from, piece.state_offset + from});
  }
  return own;
}

void Trainer::restore_parts(const std::vector<TensorPart>& parts) {
  // In the order in which `state_parts` collected them.
  std::size_t next = 0;
  const auto restore = [&](const PieceView& view) {
    for (const OwnedPiece& piece : store_->owned()) {
      const Parameter& parameter = store_->parameters()[static_cast<std::size_t>(piece.parameter)];
      const TensorView target = view(piece);
      std::vector<float> host(static_cast<std::size_t>(piece.elements));
      device_.download(host.data(), target.data, host.size() * sizeof(float));
      const std::int64_t skipped = piece.offset - parameter.offset;
      for (const NamedBox& whole : parameter.boxes)
        for (const NamedBox& box : boxes_in_range(whole, skipped, skipped + piece.elements)) {
          ensure(next < parts.size() && parts[next].box.extent == box.extent,
                 "parts come back as they were collected");
          const std::vector<float>& values = parts[next++].values;
          std::memcpy(host.data() + (box.offset - skipped), values.data(),
                      values.size() * sizeof(float));
        }
      device_.upload(target.data, host.data(), host.size() * sizeof(float));
    }
  };
  restore([&](const OwnedPiece& piece) { return store_->master(piece); });
  restore([&](const OwnedPiece& piece) { return store_->first_moment(piece); });
  restore([&](const OwnedPiece& piece) { return store_->second_moment(piece); });
  ensure(next == parts.size(), "all parts come back");
  store_->weights_from_master();
  sync_->gather_weights();
  sync_->await_all_weights();
}

double Trainer::sum_over_world(double value) {
  const Tensor total(*pool_, DType::F64, {1});
  device_.upload(total.view().data, &value, sizeof(value));
  groups_->world->all_reduce(total, Reduction::Sum, Traffic::Report);
  device_.download(&value, total.view().data, sizeof(value));
  return value;
}

std::vector<std::vector<double>> Trainer::from_all_ranks(const std::vector<double>& mine) {
  const auto ranks = static_cast<std::size_t>(groups_->world->size());
  std::vector<double> flat(ranks * mine.size(), 0.0);
  const auto own = static_cast<std::size_t>(groups_->world->rank()) * mine.size();
  for (std::size_t i = 0; i < mine.size(); ++i) flat[own + i] = mine[i];
  const Tensor all(*pool_, DType::F64, {static_cast<std::int64_t>(flat.size())});
  device_.upload(all.view().data, flat.data(), flat.size() * sizeof(double));
  groups_->world->all_reduce(all, Reduction::Sum, Traffic::Report);
  device_.download(flat.data(), all.view().data, flat.size() * sizeof(double));
  std::vector<std::vector<double>> out;
  for (auto next = flat.begin(); next != flat.end();
       next += static_cast<std::ptrdiff_t>(mine.size()))
    out.emplace_back(next, next + static_cast<std::ptrdiff_t>(mine.size()));
  return out;
}

std::vector<std::vector<double>> Trainer::traffic_of_all() {
  std::vector<double> mine;
  for (int t = 0; t < kTrafficCount; ++t)
    mine.push_back(static_cast<double>(traffic_.of(static_cast<Traffic>(t))));
  return from_all_ranks(mine);
}

}  // namespace rehearse
