#include "kernels/memory_overheads.h"

#include <cstdio>

#include "kernels/profile_tables.h"

namespace rehearse {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;

using Part = StatedBytes MemoryOverheads::*;
constexpr struct {
  Part part;
  const char* name;
} kParts[] = {{&MemoryOverheads::context, "context"},
              {&MemoryOverheads::matrix_workspace, "workspace of matrix products"},
              {&MemoryOverheads::pair_communicator, "each communicator of two"},
              {&MemoryOverheads::communicator, "each larger communicator"}};

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
  static const FieldTable<MemoryOverheads> table =
      FieldTable<MemoryOverheads>("memory_overheads", "Device memory beside tensors")
          .object("context", &MemoryOverheads::context, stated_bytes_table(),
                  "of the driver's context with the kernels that are loaded")
          .omit_default()
          .object("matrix_workspace", &MemoryOverheads::matrix_workspace, stated_bytes_table(),
                  "of the library of matrix products")
          .omit_default()
          .object("pair_communicator", &MemoryOverheads::pair_communicator, stated_bytes_table(),
                  "buffers of a communicator of two ranks")
          .omit_default()
          .object("communicator", &MemoryOverheads::communicator, stated_bytes_table(),
                  "buffers of a communicator of more ranks")
          .omit_default();
  return table;
}

StatedBytes* overhead_named(MemoryOverheads& overheads, std::string_view key) {
  if (key == "context") return &overheads.context;
  if (key == "matrix_workspace") return &overheads.matrix_workspace;
  if (key == "pair_communicator") return &overheads.pair_communicator;
  if (key == "communicator") return &overheads.communicator;
  return nullptr;
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
  for (const auto& [part, name] : kParts)
    if ((stated.*part).bytes > 0) all.*part = stated.*part;
  return all;
}

MemoryOverheads larger_of(const MemoryOverheads& a, const MemoryOverheads& b) {
  MemoryOverheads larger = a;
  for (const auto& [part, name] : kParts)
    if ((b.*part).bytes > (a.*part).bytes) larger.*part = b.*part;
  return larger;
}

std::string stated_text(const MemoryOverheads& stated) {
  std::string text;
  for (const auto& [part, name] : kParts) {
    const StatedBytes& bytes = stated.*part;
    if (bytes.bytes <= 0) continue;
    char size[32];
    std::snprintf(size, sizeof size, " %.0f MiB", bytes.bytes / kMiB);
    text += (text.empty() ? "" : ", ") + std::string(name) + size;
    if (!bytes.source.empty()) text += " (" + bytes.source + ")";
  }
  return text;
}

}  // namespace rehearse
