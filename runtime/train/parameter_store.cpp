#include "runtime/train/parameter_store.h"

#include <algorithm>

#include "plan/ensure.h"

namespace rehearse {
namespace {

/// Elements that are cast at once: 4 MiB of them.
constexpr std::int64_t kStagedElements = std::int64_t{1} << 20;

std::size_t at(std::int32_t index) { return static_cast<std::size_t>(index); }

TensorView range(const Tensor& flat, std::int64_t offset, std::int64_t elements) {
  return slice_rows(flat.view(), offset, elements);
}

void clear(TensorPool& pool, const Tensor& tensor) {
  pool.device().fill_bytes(
      tensor.view().data, 0,
      static_cast<std::size_t>(tensor.elements()) * element_bytes(tensor.dtype()));
}

}  // namespace

std::int32_t ParameterStore::add_unit(Unit unit, std::vector<Parameter> parameters) {
  const auto index = static_cast<std::int32_t>(units_.size());
  for (Parameter& parameter : parameters) {
    parameter.unit = index;
    unit.parameters.push_back(static_cast<std::int32_t>(parameters_.size()));
    parameters_.push_back(std::move(parameter));
  }
  units_.push_back(std::move(unit));
  return index;
}

void ParameterStore::share_parameter(std::int32_t unit, std::int32_t parameter) {
  units_[at(unit)].parameters.push_back(parameter);
}

void ParameterStore::build(double bucket_parameters, Shares shares) {
  shares_ = shares;
  // Buckets fill from the end of each chunk; `open` counts the one that is being filled.
  std::vector<std::vector<std::int32_t>> groups;
  double open = 0;
  for (std::size_t i = units_.size(); i-- > 0;) {
    const bool new_chunk = i + 1 == units_.size() || units_[i].chunk != units_[i + 1].chunk;
    if (new_chunk || open >= bucket_parameters) {
      groups.emplace_back();
      open = 0;
    }
    groups.back().push_back(static_cast<std::int32_t>(i));
    for (const std::int32_t p : units_[i].parameters)
      if (parameters_[at(p)].unit == static_cast<std::int32_t>(i))
        open += static_cast<double>(parameters_[at(p)].elements());
  }
  // In memory units lie in the order of the model.
  for (auto group = groups.rbegin(); group != groups.rend(); ++group) {
    GradientBucket bucket;
    bucket.offset = total_;
    bucket.units.assign(group->rbegin(), group->rend());
    for (const std::int32_t u : bucket.units) {
      units_[at(u)].bucket = static_cast<std::int32_t>(buckets_.size());
      for (const std::int32_t p : units_[at(u)].parameters) {
        if (parameters_[at(p)].unit != u) continue;
        parameters_[at(p)].offset = total_;
        total_ += parameters_[at(p)].elements();
      }
    }
    const std::int64_t unit_size = shares_.count;
    total_ = (total_ + unit_size - 1) / unit_size * unit_size;
    bucket.elements = total_ - bucket.offset;
    bucket_state_.push_back(state_total_);
    state_total_ += share(bucket);
    buckets_.push_back(std::move(bucket));
  }
  for (std::size_t b = 0; b < buckets_.size(); ++b) {
    const std::int64_t first = buckets_[b].offset + shares_.rank * share(buckets_[b]);
    const std::int64_t end = first + share(buckets_[b]);
    for (const std::int32_t u : buckets_[b].units)
      for (const std::int32_t p : units_[at(u)].parameters) {
        const Parameter& parameter = parameters_[at(p)];
        if (parameter.unit != u) continue;
        const std::int64_t begin = std::max(first, parameter.offset);
        const std::int64_t stop = std::min(end, parameter.offset + parameter.elements());
        if (begin < stop)
          owned_.push_back({p, begin, stop - begin, bucket_state_[b] + begin - first});
      }
  }
  weights_ = Tensor(*pool_, dtype_, {total_});
  gradients_ = Tensor(*pool_, DType::F32, {total_});
  if (shares_.count > 1) shard_gradients_ = Tensor(*pool_, DType::F32, {state_total_});
  if (has_master()) master_ = Tensor(*pool_, DType::F32, {state_total_});
  first_moment_ = Tensor(*pool_, DType::F32, {state_total_});
  second_moment_ = Tensor(*pool_, DType::F32, {state_total_});
  for (const Tensor* tensor : {&weights_, &gradients_, &first_moment_, &second_moment_})
    clear(*pool_, *tensor);
}

void ParameterStore::initialise(std::uint64_t seed) {
  // One parameter after the other, and piece by piece through a buffer that is given back: what
  // lay in the pool for all of them would be held as long as the run lasts.
  ComputeDevice& device = pool_->device();
  DeviceBuffer staging;
  if (has_master()) staging = {device, kStagedElements * sizeof(float)};
  std::vector<float> host;
  for (const Parameter& parameter : parameters_) {
    host.assign(static_cast<std::size_t>(parameter.elements()), 0.0f);
    initial_weights(parameter, seed, host.data());
    if (!has_master()) {
      device.upload(weights(parameter.offset, parameter.elements()).data, host.data(),
                    host.size() * sizeof(float));
      continue;
    }
    write_narrow(parameter.offset, host, staging);
    for (const OwnedPiece& piece : owned_)
      if (&parameters_[at(piece.parameter)] == &parameter)
        device.upload(master(piece).data, host.data() + (piece.offset - parameter.offset),
                      static_cast<std::size_t>(piece.elements) * sizeof(float));
  }
}

void ParameterStore::write_narrow(std::int64_t offset, const std::vector<float>& values,
                                  const DeviceBuffer& staging) {
  const auto count = static_cast<std::int64_t>(values.size());
  for (std::int64_t done = 0; done < count; done += kStagedElements) {
    const std::int64_t elements = std::min(kStagedElements, count - done);
    pool_->device().upload(staging.data(), values.data() + done,
                           static_cast<std::size_t>(elements) * sizeof(float));
    pool_->device().run(Cast{.x = TensorView(staging.data(), DType::F32, {elements}),
                             .out = weights(offset + done, elements)});
  }
}

ConstTensorView ParameterStore::weight(std::int32_t parameter) const {
  const Parameter& p = parameters_[at(parameter)];
  return reshaped(weights(p.offset, p.elements()), p.shape);
}

TensorView ParameterStore::gradient(std::int32_t parameter) const {
  const Parameter& p = parameters_[at(parameter)];
  return reshaped(gradients(p.offset, p.elements()), p.shape);
}

TensorView ParameterStore::weights(std::int64_t offset, std::int64_t elements) const {
  return range(weights_, offset, elements);
}

TensorView ParameterStore::gradients(std::int64_t offset, std::int64_t elements) const {
  return range(gradients_, offset, elements);
}

TensorView ParameterStore::owned_gradient(const OwnedPiece& piece) const {
  return shares_.count > 1 ? range(shard_gradients_, piece.state_offset, piece.elements)
                           : gradients(piece.offset, piece.elements);
}

TensorView ParameterStore::owned_gradient(const GradientBucket& bucket) const {
  if (shares_.count == 1) return gradients(bucket.offset, bucket.elements);
  const auto index = static_cast<std::size_t>(&bucket - buckets_.data());
  return range(shard_gradients_, bucket_state_[index], share(bucket));
}

TensorView ParameterStore::master(const OwnedPiece& piece) const {
  return has_master() ? range(master_, piece.state_offset, piece.elements)
                      : weights(piece.offset, piece.elements);
}

TensorView ParameterStore::first_moment(const OwnedPiece& piece) const {
  return range(first_moment_, piece.state_offset, piece.elements);
}

TensorView ParameterStore::second_moment(const OwnedPiece& piece) const {
  return range(second_moment_, piece.state_offset, piece.elements);
}

TensorView ParameterStore::own_weights(const GradientBucket& bucket) const {
  return weights(bucket.offset + shares_.rank * share(bucket), share(bucket));
}

void ParameterStore::clear_gradients() { clear(*pool_, gradients_); }

void ParameterStore::weights_from_master() {
  if (!has_master()) return;
  for (const OwnedPiece& piece : owned_)
    pool_->device().run(Cast{.x = master(piece), .out = weights(piece.offset, piece.elements)});
}

std::int64_t ParameterStore::parameter_count() const {
  std::int64_t count = 0;
  for (const Parameter& parameter : parameters_) count += parameter.elements();
  return count;
}

ParameterStore::Bytes ParameterStore::bytes() const {
  const auto of = [](const Tensor& tensor) {
    return tensor.given()
               ? static_cast<std::size_t>(tensor.elements()) * element_bytes(tensor.dtype())
               : std::size_t{0};
  };
  return {of(weights_), of(gradients_) + of(shard_gradients_),
          of(master_) + of(first_moment_) + of(second_moment_)};
}

}  // namespace rehearse
