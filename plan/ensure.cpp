#include "plan/ensure.h"

#include <cstdio>
#include <cstdlib>

namespace rehearse {

void ensure_failed(std::string_view sentence, const std::source_location& where) {
  std::fprintf(stderr, "internal error: %.*s (%s:%u in %s)\n", static_cast<int>(sentence.size()),
               sentence.data(), where.file_name(), static_cast<unsigned>(where.line()),
               where.function_name());
  std::abort();
}

}  // namespace rehearse
