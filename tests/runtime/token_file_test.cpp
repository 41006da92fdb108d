// Token files: what is written comes back; damaged ones are refused with a sentence.
#include "runtime/data/token_file.h"

#include <numeric>
#include <vector>

#include "tests/catch.h"
#include "tests/places.h"
#include "tests/runtime/scratch_folder.h"

using namespace rehearse;

namespace {

std::string open_refusal(const std::filesystem::path& path) {
  return refusal([&] { TokenFile::open(path); });
}

bool says(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("tokens come back as they were written, in two bytes or four") {
  const ScratchFolder folder("tokens");
  for (const std::int64_t vocab : {256, 65536, 65537, 128256}) {
    CAPTURE(vocab);
    std::vector<std::int32_t> tokens(1000);
    for (std::size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = static_cast<std::int32_t>(static_cast<std::int64_t>(i * i * 7919) % vocab);
    tokens.back() = static_cast<std::int32_t>(vocab - 1);
    write_token_file(folder.file("t"), tokens, vocab, true);
    const std::size_t width = vocab <= 65536 ? 2 : 4;
    CHECK(std::filesystem::file_size(folder.file("t")) == kTokenHeaderBytes + width * 1000);
    const TokenFile file = TokenFile::open(folder.file("t"));
    CHECK(file.size() == 1000);
    CHECK(file.vocab() == vocab);
    std::vector<std::int32_t> back(tokens.size());
    file.copy(0, back);
    CHECK(back == tokens);
    CHECK(file.at(999) == vocab - 1);
  }
}

TEST_CASE("a token file begins with the header that is documented") {
  const ScratchFolder folder("header");
  const std::vector<std::int32_t> tokens{1, 258};
  write_token_file(folder.file("t"), tokens, 300, false);
  const std::string bytes = bytes_of_file(folder.file("t"));
  using namespace std::string_literals;
  CHECK(bytes == "RHTOKENS\1\0\0\0\2\0\0\0\x2c\1\0\0\0\0\0\0\2\0\0\0\0\0\0\0\1\0\2\1"s);
}

TEST_CASE("a text becomes a token each byte, whatever its bytes are") {
  const ScratchFolder folder("bytes");
  std::string text(200'000, '\0');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 31 + i / 256);
  write_bytes(folder.file("text"), text);
  CHECK(tokenize_bytes(folder.file("text"), folder.file("t"), false) == 200'000);
  const TokenFile file = TokenFile::open(folder.file("t"));
  REQUIRE(file.size() == 200'000);
  CHECK(file.vocab() == 256);
  bool same = true;
  for (std::int64_t i = 0; i < file.size(); ++i)
    same = same && file.at(i) == static_cast<unsigned char>(text[static_cast<std::size_t>(i)]);
  CHECK(same);
  CHECK(says(refusal([&] { tokenize_bytes(folder.file("text"), folder.file("t"), false); }),
             "it exists"));
}

TEST_CASE("texts that cannot be tokenized are refused, and leave nothing behind") {
  const ScratchFolder folder("no-text");
  write_bytes(folder.file("empty"), "");
  const auto attempt = [&](const std::filesystem::path& text) {
    return refusal([&] { tokenize_bytes(text, folder.file("t"), false); });
  };
  CHECK(says(attempt(folder.file("missing")), "there is no such file"));
  CHECK(says(attempt(folder.file("empty")), "there is no text in it"));
  CHECK(says(attempt(folder.path()), "no regular file"));
  CHECK(!std::filesystem::exists(folder.file("t")));
}

TEST_CASE("damaged token files are refused when opened, each with its reason") {
  const ScratchFolder folder("damaged");
  const std::vector<std::int32_t> tokens{3, 1, 4, 1, 5};
  write_token_file(folder.file("good"), tokens, 256, false);
  const std::string good = bytes_of_file(folder.file("good"));
  const auto with = [&](std::size_t at, char byte) {
    std::string bytes = good;
    bytes[at] = byte;
    write_bytes(folder.file("bad"), bytes);
    return open_refusal(folder.file("bad"));
  };
  CHECK(says(open_refusal(folder.file("missing")), "No such file"));
  CHECK(says(open_refusal(folder.path()), "no regular file"));
  CHECK(says(with(0, 'X'), "no token file"));
  CHECK(says(with(8, 2), "its version is 2"));
  CHECK(says(with(12, 3), "3 bytes instead of 2 or 4"));
  CHECK(says(with(17, 0), "vocabulary of 0"));
  CHECK(says(with(24, 6), "promises 6 tokens"));
  CHECK(says(with(31, '\x7f'), "cut off or damaged"));
  for (std::size_t length = 0; length < good.size(); ++length) {
    write_bytes(folder.file("bad"), good.substr(0, length));
    CHECK(open_refusal(folder.file("bad")) != "");
  }
  write_bytes(folder.file("bad"), good + "x");
  CHECK(says(open_refusal(folder.file("bad")), "cut off or damaged"));
}

TEST_CASE("a token outside its vocabulary is named where it is read") {
  const ScratchFolder folder("vocabulary");
  const std::vector<std::int32_t> tokens{3, 1, 4};
  write_token_file(folder.file("t"), tokens, 256, false);
  std::string bytes = bytes_of_file(folder.file("t"));
  bytes[kTokenHeaderBytes + 3] = 1;
  write_bytes(folder.file("t"), bytes);
  const TokenFile file = TokenFile::open(folder.file("t"));
  CHECK(file.at(0) == 3);
  CHECK(says(refusal([&] { file.at(1); }), "token 1 is 257, outside its vocabulary of 256"));
}

TEST_CASE("the text that ships is plain and long enough for a demonstration") {
  const auto path = std::filesystem::path(source_directory()) / "scenarios/data/lighthouse-log.txt";
  const std::string text = bytes_of_file(path);
  CHECK(text.size() > 50'000);
  CHECK(text.size() < 100'000);
  bool plain = true;
  for (const char byte : text) plain = plain && (byte == '\n' || (byte >= ' ' && byte <= '~'));
  CHECK(plain);
}
