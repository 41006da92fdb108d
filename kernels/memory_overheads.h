#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace rehearse {

/// Bytes, and how they are known; 0: not stated.
struct StatedBytes {
  double bytes = 0;
  std::string source;
};

/// Device memory that is taken beside tensors.
struct MemoryOverheads {
  StatedBytes context;            ///< of the driver's context with the kernels that are loaded
  StatedBytes matrix_workspace;   ///< of the library of matrix products
  StatedBytes pair_communicator;  ///< buffers of a communicator of two ranks
  StatedBytes communicator;       ///< of one of more ranks
};

/// What is usually taken, with sources. `stated` goes before it, part by part.
MemoryOverheads usual_overheads(const MemoryOverheads& stated = MemoryOverheads());

/// Of either the larger, part by part.
MemoryOverheads larger_of(const MemoryOverheads& a, const MemoryOverheads& b);

/// The part that a file calls `key` ("context", "matrix_workspace", "pair_communicator",
/// "communicator"); nullptr where none is called so.
StatedBytes* overhead_named(MemoryOverheads& overheads, std::string_view key);

/// The bytes of each part, by its key.
std::vector<std::pair<const char*, double>> overhead_bytes(const MemoryOverheads& overheads);

/// "context 412 MiB (measured: …)" for each part that is stated, joined; empty where none is.
std::string stated_text(const MemoryOverheads& stated);

}  // namespace rehearse
