#include "kernels/memory_overheads.h"

#include <cstdio>

#include "kernels/profile_tables.h"

namespace rehearse {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;

using Part = StatedBytes MemoryOverheads::*;
constexpr struct {
  Part part;
  const char *key, *name, *is;
} kParts[] = {{&MemoryOverheads::context, "context", "context",
               "of the driver's context with the kernels that are loaded"},
              {&MemoryOverheads::matrix_workspace, "matrix_workspace",
               "workspace of matrix products", "of the library of matrix products"},
              {&MemoryOverheads::pair_communicator, "pair_communicator", "each communicator of two",
               "buffers of a communicator of two ranks"},
              {&MemoryOverheads::communicator, "communicator", "each larger communicator",
               "buffers of a communicator of more ranks"}};

const FieldTable<StatedBytes>& stated_bytes_table() {
  static const FieldTable<StatedBytes> table =
      FieldTable<StatedBytes>("stated_bytes", "Memory that is taken, and how it is known")
          .quantity("bytes", &StatedBytes::bytes, Dimension::Bytes, {0, 1e12}, "taken")
          .required()
          .text("source", &StatedBytes::source, "measured how, or stated where");
  return table;
}

}  // namespace

const FieldTable<MemoryOverheads>& memory_overheads_table() {
  static const FieldTable<MemoryOverheads> table = [] {
    FieldTable<MemoryOverheads> fields("memory_overheads", "Device memory beside tensors");
    for (const auto& at : kParts)
      fields.object(at.key, at.part, stated_bytes_table(), at.is).omit_default();
    return fields;
  }();
  return table;
}

StatedBytes* overhead_named(MemoryOverheads& overheads, std::string_view key) {
  for (const auto& at : kParts)
    if (key == at.key) return &(overheads.*at.part);
  return nullptr;
}

std::vector<std::pair<const char*, double>> overhead_bytes(const MemoryOverheads& overheads) {
  std::vector<std::pair<const char*, double>> all;
  for (const auto& at : kParts) all.emplace_back(at.key, (overheads.*at.part).bytes);
  return all;
}

MemoryOverheads usual_overheads(const MemoryOverheads& stated) {
  MemoryOverheads all{
      .context = {500 * kMiB,
                  "with a framework's kernels loaded lazily: 400 to 600 MiB on A100 "
                  "and H100"},
      .matrix_workspace = {32 * kMiB,
                           "cuBLAS' recommended workspace from Hopper on (its "
                           "documentation, cublasSetWorkspace)"},
      .pair_communicator = {342 * kMiB,
                            "NCCL's buffers among 2 GPUs: system files of "
                            "ai-dynamo/aiconfigurator, commit 095f58a5"},
      .communicator = {392 * kMiB, "NCCL's buffers among 4 and 8 GPUs: the same"}};
  for (const auto& at : kParts)
    if ((stated.*at.part).bytes > 0) all.*at.part = stated.*at.part;
  return all;
}

MemoryOverheads larger_of(const MemoryOverheads& a, const MemoryOverheads& b) {
  MemoryOverheads larger = a;
  for (const auto& at : kParts)
    if ((b.*at.part).bytes > (a.*at.part).bytes) larger.*at.part = b.*at.part;
  return larger;
}

std::string stated_text(const MemoryOverheads& stated) {
  std::string text;
  for (const auto& at : kParts) {
    const StatedBytes& bytes = stated.*at.part;
    if (bytes.bytes <= 0) continue;
    char size[32];
    std::snprintf(size, sizeof size, " %.0f MiB", bytes.bytes / kMiB);
    text += (text.empty() ? "" : ", ") + std::string(at.name) + size;
    if (!bytes.source.empty()) text += " (" + bytes.source + ")";
  }
  return text;
}

}  // namespace rehearse
