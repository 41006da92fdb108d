#pragma once
#include <string>
#include <vector>

#include "plan/model.h"

namespace rehearse {

/// Published shapes of decoder models, in the order of the lists people see: GPT-2, GPT-3,
/// Megatron-LM's scaling series, Llama 2 and 3, others, and mixtures of experts. Sources are beside
/// the shapes.
const std::vector<Model>& model_catalogue();

/// nullptr where the name is unknown; the caller adds the did-you-mean.
const Model* find_model(const std::string& name);

}  // namespace rehearse
