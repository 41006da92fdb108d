#pragma once
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <random>
#include <string>

namespace rehearse {

/// Pieces that are likely to hurt: numbers at edges, brackets, quotes, broken UTF-8, names.
inline constexpr const char* kPieces[] = {"0",
                                          "-1",
                                          "1e400",
                                          "NaN",
                                          "9223372036854775808",
                                          "-9223372036854775809",
                                          "1e308",
                                          "0.1",
                                          "null",
                                          "true",
                                          "[]",
                                          "{}",
                                          "[[[[[[[",
                                          "}}",
                                          "\"",
                                          "\\",
                                          "\\u0000",
                                          "\\ud800",
                                          "\xFF",
                                          "\xE2\x82",
                                          ",",
                                          ":",
                                          "//",
                                          "/*",
                                          "\"base\"",
                                          "\"zip\"",
                                          "\"/plan/tp\"",
                                          "\"/cluster/node/gpu/memory\"",
                                          "\"400 Gbit/s\"",
                                          "\"x\": 1,",
                                          "\"groups\"",
                                          "\"torus\"",
                                          "\"dragonfly\"",
                                          "\"leaf-spine\"",
                                          "1048576",
                                          "65536",
                                          "\"interleaved-1f1b\"",
                                          "\"switch_ports\": 4,",
                                          "\"oversubscription\": 3,",
                                          "\"torus_dimensions\": [2, 2],"};

/// Changes a JSON text at random; the same seed gives the same texts.
class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  std::string mutate(std::string text) {
    // One change often leaves a readable scenario, several rarely do: both are wanted.
    const int changes = below(2) == 0 ? 1 : 1 + static_cast<int>(below(4));
    for (int i = 0; i < changes && !text.empty(); ++i) change(text);
    return text;
  }

 private:
  std::size_t below(std::size_t bound) { return random_() % bound; }

  /// The begin of a token, so that many mutants stay JSON.
  std::size_t token(const std::string& text) {
    const std::size_t at = text.find_first_of("\"0123456789[{", below(text.size()));
    return at == std::string::npos ? below(text.size()) : at;
  }

  void change(std::string& text) {
    const std::size_t at = below(text.size());
    switch (below(9)) {
      case 0:
        text[at] = static_cast<char>(random_());
        break;
      case 1:
        text.erase(at, 1 + below(8));
        break;
      case 2:
        text.insert(token(text), kPieces[below(std::size(kPieces))]);
        break;
      case 3: {  // a token becomes another
        const std::size_t begin = token(text);
        const std::size_t end = std::min(text.find_first_of(",:]}", begin), text.size());
        text.replace(begin, end - begin, kPieces[below(std::size(kPieces))]);
        break;
      }
      case 4: {  // a piece of the text comes twice
        const std::string piece = text.substr(at, 1 + below(60));
        text.insert(token(text), piece);
        break;
      }
      case 5:
      case 6:
      case 7: {  // digits change, everything else stays
        const std::size_t digit = text.find_first_of("0123456789", at);
        if (digit != std::string::npos) text[digit] = static_cast<char>('0' + below(10));
        break;
      }
      default:
        text.resize(at);
    }
  }

  std::mt19937_64 random_;
};

}  // namespace rehearse
