# Writes OUTPUT, a source file that holds the text of FILE.
# Run as: cmake -DFILE=… -DOUTPUT=… -P embed_text.cmake
# As numbers, since a compiler need not take string literals of more than 64 KiB.
file(READ ${FILE} bytes HEX)
string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
string(REGEX REPLACE "((0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,))" "\\1\n" bytes
  "${bytes}")
file(WRITE ${OUTPUT} "#include \"runtime/train/corpus.h\"\n\nnamespace rehearse {\n
std::string_view shipped_text() {
  static constexpr unsigned char kBytes[] = {\n${bytes}};
  return {reinterpret_cast<const char*>(kBytes), sizeof kBytes};
}\n
}  // namespace rehearse\n")
