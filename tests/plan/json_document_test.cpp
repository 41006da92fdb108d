#include "plan/json_document.h"

#include <cmath>
#include <limits>

#include "tests/catch.h"

namespace rehearse {
namespace {

/// Line and column of a value, by the problem that would be reported there.
std::string place(const JsonDocument& document, const JsonValue& value) {
  const Problem at = document.source.problem_at(value.offset, "", "");
  return std::to_string(at.line) + ':' + std::to_string(at.column);
}

std::string problems_of(const std::string& text, const JsonLimits& limits = {}) {
  Problems problems;
  parse_json(text, "x.json", problems, limits);
  return problems.text();
}

TEST_CASE("Every key and value knows its line and column") {
  Problems problems;
  const JsonDocument document = parse_json(
      "{ // the first line\n"
      "  \"a\": 1, /* \"b\": 2, */ \"list\": [true, null,\n"
      "     -2.5e3 ,\"x\\\"y\"],\n"
      "\t\"deep\": {\"er\": {}}\n"
      "}\n",
      "x.json", problems);
  REQUIRE(problems.empty());
  REQUIRE(document.parsed);
  const JsonValue& root = document.root;
  CHECK(place(document, root) == "1:1");
  CHECK(place(document, *root.find("a")) == "2:8");
  const JsonValue& list = *root.find("list");
  CHECK(place(document, list) == "2:33");
  CHECK(place(document, list.items[0]) == "2:34");
  CHECK(place(document, list.items[1]) == "2:40");
  CHECK(place(document, list.items[2]) == "3:6");
  CHECK(list.items[2].number == -2500);
  CHECK(place(document, list.items[3]) == "3:14");
  CHECK(list.items[3].text == "x\"y");
  CHECK(place(document, *root.find("deep")->find("er")) == "4:17");
  CHECK(document.source.problem_at(root.members[1].offset, "", "").column == 25);
}

TEST_CASE("A byte order mark moves nothing") {
  Problems problems;
  const JsonDocument document = parse_json("\xEF\xBB\xBF{\"a\": 7}", "x.json", problems);
  REQUIRE(document.parsed);
  CHECK(document.root.find("a")->integer == 7);
  CHECK(document.root.find("a")->offset == 9);
}

TEST_CASE("Whole numbers stay whole up to 64 bits and become numbers beyond") {
  Problems problems;
  const JsonDocument document =
      parse_json("[9223372036854775807, -9223372036854775808, 9223372036854775808, 1.0, 1e3]",
                 "x.json", problems);
  REQUIRE(document.parsed);
  CHECK(document.root.items[0].integer == std::numeric_limits<std::int64_t>::max());
  CHECK(document.root.items[1].integer == std::numeric_limits<std::int64_t>::min());
  CHECK(document.root.items[2].kind == JsonKind::Number);
  CHECK(document.root.items[3].kind == JsonKind::Number);
  CHECK(document.root.items[4].number == 1000);
}

TEST_CASE(
    "Double keys and numbers that are not finite are reported together and the rest is read") {
  Problems problems;
  const JsonDocument document = parse_json(
      "{\"a\": NaN, \"b\": [1, 1e400, -Infinity],\n \"a\": 2, \"c\": {\"d\": 1, \"d\": 3}}",
      "x.json", problems);
  CHECK(document.parsed);
  REQUIRE(problems.count() == 5);
  CHECK(problems.text() ==
        "x.json:1:7: error: /a: NaN is not a finite number\n"
        "  {\"a\": NaN, \"b\": [1, 1e400, -Infinity],\n"
        "        ^\n"
        "  help: numbers reach up to about 1.8e308\n"
        "x.json:1:21: error: /b/1: 1e400 is not a finite number\n"
        "  {\"a\": NaN, \"b\": [1, 1e400, -Infinity],\n"
        "                      ^\n"
        "  help: numbers reach up to about 1.8e308\n"
        "x.json:1:28: error: /b/2: -Infinity is not a finite number\n"
        "  {\"a\": NaN, \"b\": [1, 1e400, -Infinity],\n"
        "                             ^\n"
        "  help: numbers reach up to about 1.8e308\n"
        "x.json:2:2: error: /a: the key \"a\" is given twice\n"
        "   \"a\": 2, \"c\": {\"d\": 1, \"d\": 3}}\n"
        "   ^\n"
        "  help: remove one of them: only one can count\n"
        "x.json:2:24: error: /c/d: the key \"d\" is given twice\n"
        "   \"a\": 2, \"c\": {\"d\": 1, \"d\": 3}}\n"
        "                         ^\n"
        "  help: remove one of them: only one can count\n");
  CHECK(document.root.members.size() == 3);
  CHECK(document.root.find("a")->kind == JsonKind::Faulty);
  CHECK(document.root.find("c")->find("d")->integer == 1);
}

TEST_CASE("Syntax errors say what and where, and how to mend it") {
  CHECK(problems_of("[1, 2,]") ==
        "x.json:1:7: error: this is not JSON: unexpected ']'; expected '[', '{', or a literal\n"
        "  [1, 2,]\n"
        "        ^\n"
        "  help: remove the comma before it: JSON has no comma behind the last item\n");
  CHECK(problems_of("{\"a\": 1\n \"b\": 2}") ==
        "x.json:2:2: error: this is not JSON: unexpected string literal; expected '}'\n"
        "   \"b\": 2}\n"
        "   ^\n"
        "  help: a comma may be missing before it\n");
  CHECK(problems_of("{\n \"a\": [1,\n").find("the list that begins in line 2 is not closed") !=
        std::string::npos);
  CHECK(problems_of("{a: 1}").find("x.json:1:2:") == 0);
  CHECK(problems_of("{a: 1}").find("double quotes") != std::string::npos);
  CHECK(problems_of("{'a': 1}").find("double quotes") != std::string::npos);
  CHECK(problems_of("{\"a\": tru}").find("x.json:1:7:") == 0);
  CHECK(problems_of("{\"a\": \"open\n}")
            .find("x.json:1:7: error: this is not JSON: the text that "
                  "begins here is not closed in its line") == 0);
  CHECK(problems_of("[1] 2").find("x.json:1:5:") == 0);
  CHECK(problems_of("").find("the document is empty") != std::string::npos);
  CHECK(problems_of(" // nothing\n").find("the document is empty") != std::string::npos);
  CHECK(problems_of("/* open").find("x.json:1:") == 0);
}

TEST_CASE("Bytes that are not UTF-8 and NUL bytes are found") {
  CHECK(problems_of("{\"a\": \"\xFF\"}")
            .find("x.json:1:8: error: this is not JSON: the byte here "
                  "is not UTF-8") == 0);
  CHECK(problems_of("{\"a\": \"\xED\xA0\x80\"}").find("is not UTF-8") != std::string::npos);
  CHECK(problems_of(std::string("{}\0{}", 5)).find("x.json:1:3: error: there is a NUL byte") == 0);
  CHECK_FALSE(problems_of(std::string("{\"a\0\": 1}", 9)).empty());
}

TEST_CASE("Documents beyond the limits are refused with a place") {
  const std::string deep(200'000, '[');
  CHECK(problems_of(deep).find("x.json:1:65: error: values are nested deeper than 64 levels") == 0);
  std::string flat = "[0";
  for (int i = 0; i < 200; ++i) flat += ",0";
  CHECK(problems_of(flat + "]", {.values = 100}).find("more than 100 values") != std::string::npos);
  CHECK(problems_of(flat + "]", {.bytes = 100}) ==
        "x.json: error: the document has more than 100 bytes\n"
        "  help: a document of this kind needs far fewer\n");
  CHECK(problems_of(flat + "]").empty());
}

TEST_CASE("A file that cannot be read is a problem of the input") {
  Problems problems;
  CHECK_FALSE(parse_json_file("/nonexistent/x.json", problems).parsed);
  CHECK_FALSE(parse_json_file("/", problems).parsed);
  CHECK(problems.count() == 2);
}

TEST_CASE("Long lines are shown around the place") {
  const std::string text = "{\"" + std::string(300, 'a') + "\": 1, \"b\": ]}";
  const std::string shown = problems_of(text);
  CHECK(shown.find("x.json:1:314:") == 0);
  CHECK(shown.find("  ... aaa") != std::string::npos);
  std::size_t longest = 0, begin = 0;
  for (std::size_t end; (end = shown.find('\n', begin)) != std::string::npos; begin = end + 1)
    longest = std::max(longest, end - begin);
  CHECK(longest < 120);
  const std::size_t caret = shown.find("^");
  const std::size_t caret_column = caret - shown.rfind('\n', caret);
  const std::size_t line_begin = shown.rfind('\n', shown.rfind('\n', caret) - 1);
  CHECK(shown[line_begin + caret_column] == ']');
}

TEST_CASE("Written JSON reads back the same, in both layouts") {
  Problems problems;
  const std::string text =
      R"({"a":[1,-2,0.1,1e-300,true,null,"q\"\\\n\u0001é"],"o":{"p":[{"q":[]}],"e":{}},"n":5e+22})";
  const JsonDocument document = parse_json(text, "x.json", problems);
  REQUIRE(document.parsed);
  CHECK(to_text(document.root, JsonLayout::Compact) == text);
  const JsonDocument again = parse_json(to_text(document.root), "y.json", problems);
  REQUIRE(again.parsed);
  CHECK(to_text(again.root, JsonLayout::Compact) == text);

  JsonValue ranks = JsonValue::list();
  for (int i = 0; i < 1000; ++i) ranks.items.push_back(JsonValue::of(i));
  const std::string filled = to_text(ranks);
  for (std::size_t begin = 0, end; (end = filled.find('\n', begin)) != std::string::npos;
       begin = end + 1)
    REQUIRE(end - begin <= 101);
  CHECK(number_text(0.1) == "0.1");
  CHECK(JsonValue::of(3.0).kind == JsonKind::Integer);
  CHECK(JsonValue::of(1e300).kind == JsonKind::Number);
}

TEST_CASE("Pointers are split and joined as RFC 6901 says") {
  std::vector<std::string> tokens;
  REQUIRE(split_pointer("/a~1b/~0/0//c", tokens));
  CHECK(tokens == std::vector<std::string>{"a/b", "~", "0", "", "c"});
  CHECK(pointer_token("a/b~c") == "a~1b~0c");
  CHECK(split_pointer("", tokens));
  CHECK(tokens.empty());
  CHECK_FALSE(split_pointer("a/b", tokens));
  CHECK_FALSE(split_pointer("/a~2", tokens));
  CHECK_FALSE(split_pointer("/a~", tokens));
}

}  // namespace
}  // namespace rehearse
