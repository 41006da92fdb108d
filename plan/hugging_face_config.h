#pragma once
// Inside of plan/hugging_face.cpp and its parts; the interface is plan/hugging_face.h.
#include <string>
#include <vector>

#include "plan/json_value.h"
#include "plan/model.h"
#include "plan/noun_tables.h"
#include "plan/reading.h"

namespace rehearse {

/// Looks keys up in the one object of a config.json and reports what is wrong with them.
class ConfigObject {
 public:
  ConfigObject(const JsonValue& object, Reading& reading) : object_(object), reading_(reading) {}

  /// The value, or nullptr where the key is missing or null: both mean the default.
  const JsonValue* find(const char* key) const {
    const JsonValue* value = object_.find(key);
    return value != nullptr && value->kind != JsonKind::Null ? value : nullptr;
  }

  /// A size the shape cannot do without.
  int size(const char* key, double most) {
    const JsonValue* value = find(key);
    if (value == nullptr) {
      problem(nullptr, key, "this size is missing", "config.json files of this model_type have it");
      return 1;
    }
    return read_size(*value, key, most, 1);
  }
  int size(const char* key, double most, int absent) {
    const JsonValue* value = find(key);
    return value != nullptr ? read_size(*value, key, most, absent) : absent;
  }

  /// A number of things that may be none; 0 where the key is missing.
  int count(const char* key, double most) {
    const JsonValue* value = find(key);
    if (value == nullptr || (value->is_number() && value->number == 0)) return 0;
    return read_size(*value, key, most, 0);
  }

  bool flag(const char* key, bool absent) {
    const JsonValue* value = find(key);
    bool flag = absent;
    if (value == nullptr) return flag;
    const Reading::Inside inside(reading_, key);
    read_boolean(*value, reading_, flag);
    return flag;
  }

  std::string text(const char* key, const char* absent) {
    const JsonValue* value = find(key);
    std::string text = absent;
    if (value == nullptr) return text;
    const Reading::Inside inside(reading_, key);
    read_text(*value, reading_, text);
    return text;
  }

  /// A problem at a value, or at the object where the value is missing.
  void problem(const JsonValue* value, const char* key, std::string message,
               std::string hint = {}) {
    const Reading::Inside inside(reading_, key);
    reading_.problem((value != nullptr ? *value : object_).offset, std::move(message),
                     std::move(hint));
  }
  void problem(const char* key, std::string message, std::string hint = {}) {
    problem(object_.find(key), key, std::move(message), std::move(hint));
  }

 private:
  int read_size(const JsonValue& value, const char* key, double most, int absent) {
    const Reading::Inside inside(reading_, key);
    std::int64_t number = absent;
    read_integer(value, reading_, {1, most}, number);
    return static_cast<int>(number);
  }

  const JsonValue& object_;
  Reading& reading_;
};

/// Heads of attention from the keys that most architectures share.
void read_heads(ConfigObject& config, Model& model, const char* heads_key);
void expect_activation(ConfigObject& config, const char* key, const char* absent,
                       const std::vector<std::string>& known);
/// Llama and its descendants: RMSNorm, SwiGLU, rotary positions.
Model read_llama_like(ConfigObject& config);

// hugging_face_experts.cpp: mixtures of experts
Model read_mixtral(ConfigObject& config);
Model read_grok(ConfigObject& config);
Model read_deepseek(ConfigObject& config);
Model read_qwen3_moe(ConfigObject& config);

}  // namespace rehearse
