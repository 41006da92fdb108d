#include <algorithm>
#include <iostream>

#include "runtime/data/token_file.h"
#include "runtime/device_commands.h"

namespace rehearse {
namespace {

struct TokenizeRequest {
  std::string text, output;
  bool force = false;
};

TokenizeRequest parse(Arguments arguments) {
  const std::vector<std::string> known{"--output", "-o", "--force", "-f"};
  TokenizeRequest request;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    if (word == "--force" || word == "-f") {
      request.force = true;
    } else if (word == "--output" || word == "-o") {
      if (i + 1 == arguments.size()) throw ArgumentError(word + " wants a file");
      request.output = arguments[++i];
    } else if (word.starts_with("-")) {
      throw ArgumentError("data tokenize does not take '" + word + "'", meant(word, known));
    } else if (!request.text.empty()) {
      throw ArgumentError("data tokenize takes one text, not '" + word + "' too");
    } else {
      request.text = word;
    }
  }
  if (request.text.empty()) throw ArgumentError("data tokenize wants a text");
  if (request.output.empty())
    throw ArgumentError("data tokenize wants a file for the tokens", "-o corpus.tokens");
  return request;
}

}  // namespace

int command_data(Arguments arguments) {
  const std::vector<std::string> known{"tokenize"};
  if (arguments.empty()) throw ArgumentError("data wants to know what to do", "data tokenize");
  if (arguments.front() != "tokenize")
    throw ArgumentError("data does not know '" + arguments.front() + "'",
                        meant(arguments.front(), known));
  const TokenizeRequest request = parse(arguments.subspan(1));
  const std::int64_t count = tokenize_bytes(request.text, request.output, request.force);
  std::cout << request.output << ": " << count << " tokens, vocabulary " << kByteVocab << '\n';
  return kExitDone;
}

}  // namespace rehearse
