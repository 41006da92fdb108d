#include "plan/field_table.h"

#include "plan/noun_tables.h"
#include "tests/catch.h"

namespace rehearse {
namespace {

enum class Colour { Red, Green };
const Names<Colour> kColours = {{"red", Colour::Red}, {"green", Colour::Green}};

struct Wheel {
  int spokes = 4;
  double size_bytes = 1e9;
};
struct Cart {
  std::string name;
  std::int64_t load = 7;
  double share = 0.5;
  bool covered = false;
  Colour colour = Colour::Green;
  Wheel front;
  std::vector<Wheel> spare;
  std::vector<int> seats;
  std::vector<std::string> tags;
};

const Wheel* find_wheel(const std::string& name) {
  static const Wheel big{12, 5e9};
  return name == "big" ? &big : nullptr;
}

const FieldTable<Wheel>& wheel_table() {
  static const FieldTable<Wheel> table =
      FieldTable<Wheel>("wheel", "Rolls")
          .catalogue("wheel", find_wheel, [] { return std::vector<std::string>{"big"}; })
          .integer("spokes", &Wheel::spokes, {1, 99}, "how many spokes")
          .required()
          .quantity("size", &Wheel::size_bytes, Dimension::Bytes, {0, 1e12}, "how big");
  return table;
}

const FieldTable<Cart>& cart_table() {
  static const FieldTable<Cart> table =
      FieldTable<Cart>("cart", "Carries things")
          .text("name", &Cart::name, "its name")
          .required()
          .integer("load", &Cart::load, {0, 1e15}, "what it carries")
          .number("share", &Cart::share, {0, 1}, "how much")
          .boolean("covered", &Cart::covered, "whether it is covered")
          .choice("colour", &Cart::colour, kColours, "its colour")
          .object("front", &Cart::front, wheel_table(), "the front wheel")
          .objects("spare", &Cart::spare, wheel_table(), {0, 3}, "spare wheels")
          .integers("seats", &Cart::seats, {1, 9}, {0, 4}, "who sits where")
          .texts("tags", &Cart::tags, {0, 4}, "remarks")
          .omit_default()
          .check([](Cart& cart, ObjectCheck& check) {
            if (cart.covered && cart.load == 0)
              check.problem("covered", "an empty cart needs no cover", "load it");
          });
  return table;
}

struct Read {
  Cart cart;
  bool good = false;
  std::string problems;
};

Read read_cart(const std::string& text) {
  Problems problems;
  const JsonDocument document = parse_json(text, "cart.json", problems);
  Reading reading(document.source, problems);
  Read result;
  result.good = cart_table().read(document.root, reading, result.cart);
  result.problems = problems.text();
  return result;
}

TEST_CASE("A table reads every kind of field") {
  const Read read = read_cart(R"({"name": "c", "load": 1e3, "share": 1, "covered": true,
    "colour": "red", "front": {"spokes": 8, "size": "2 GB"}, "spare": ["big", {"spokes": 3}],
    "seats": [1, 9], "tags": ["x"]})");
  INFO(read.problems);
  REQUIRE(read.good);
  CHECK(read.cart.name == "c");
  CHECK(read.cart.load == 1000);
  CHECK(read.cart.share == 1);
  CHECK(read.cart.covered);
  CHECK(read.cart.colour == Colour::Red);
  CHECK(read.cart.front.spokes == 8);
  CHECK(read.cart.front.size_bytes == 2e9);
  REQUIRE(read.cart.spare.size() == 2);
  CHECK(read.cart.spare[0].spokes == 12);
  CHECK(read.cart.spare[1].size_bytes == 1e9);
  CHECK(read.cart.seats == std::vector<int>{1, 9});
  CHECK(read.cart.tags == std::vector<std::string>{"x"});
}

TEST_CASE("What a file does not give keeps its default") {
  const Read read = read_cart(R"({"name": "c"})");
  REQUIRE(read.good);
  CHECK(read.cart.load == 7);
  CHECK(read.cart.colour == Colour::Green);
}

TEST_CASE("Every mistake of a document is reported at once, each at its place") {
  const Read read = read_cart(
      "{\n"
      "  \"load\": 2.5,\n"
      "  \"share\": \"0.5\",\n"
      "  \"covered\": \"true\",\n"
      "  \"colour\": \"rad\",\n"
      "  \"front\": \"bug\",\n"
      "  \"spare\": [{\"size\": \"3 GX\"}, 5, \"big\", \"big\"],\n"
      "  \"seats\": [0, null],\n"
      "  \"tags\": [1],\n"
      "  \"colours\": 1,\n"
      "  \"weight\": 1e999\n"
      "}\n");
  CHECK_FALSE(read.good);
  CHECK(read.problems ==
        "cart.json:1:1: error: the key \"name\" is missing\n"
        "  {\n"
        "  ^\n"
        "  help: its name\n"
        "cart.json:2:11: error: /load: must be a whole number, but is 2.5\n"
        "    \"load\": 2.5,\n"
        "            ^\n"
        "cart.json:3:12: error: /share: must be a number, but is text \"0.5\"\n"
        "    \"share\": \"0.5\",\n"
        "             ^\n"
        "  help: write it without quotes\n"
        "cart.json:4:14: error: /covered: must be true or false, but is text \"true\"\n"
        "    \"covered\": \"true\",\n"
        "               ^\n"
        "  help: write it without quotes\n"
        "cart.json:5:13: error: /colour: \"rad\" is not known here\n"
        "    \"colour\": \"rad\",\n"
        "              ^\n"
        "  help: did you mean \"red\"?\n"
        "cart.json:6:12: error: /front: no wheel is called \"bug\"\n"
        "    \"front\": \"bug\",\n"
        "             ^\n"
        "  help: did you mean \"big\"?\n"
        "cart.json:7:12: error: /spare: must have at most 3 items, but has 4\n"
        "    \"spare\": [{\"size\": \"3 GX\"}, 5, \"big\", \"big\"],\n"
        "             ^\n"
        "cart.json:8:13: error: /seats/0: must be at least 1, but is 0\n"
        "    \"seats\": [0, null],\n"
        "              ^\n"
        "cart.json:8:16: error: /seats/1: must be a whole number, but is null\n"
        "    \"seats\": [0, null],\n"
        "                 ^\n"
        "  help: leave the key out for its default\n"
        "cart.json:9:12: error: /tags/0: must be text, but is a number\n"
        "    \"tags\": [1],\n"
        "             ^\n"
        "  help: write it in double quotes\n"
        "cart.json:10:3: error: /colours: unknown key \"colours\"\n"
        "    \"colours\": 1,\n"
        "    ^\n"
        "  help: did you mean \"colour\"?\n"
        "cart.json:11:3: error: /weight: unknown key \"weight\"\n"
        "    \"weight\": 1e999\n"
        "    ^\n"
        "  help: known here: name, load, share, covered, colour, front, spare, seats, tags\n"
        "cart.json:11:13: error: /weight: 1e999 is not a finite number\n"
        "    \"weight\": 1e999\n"
        "              ^\n"
        "  help: numbers reach up to about 1.8e308\n");
}

TEST_CASE("Whole objects are checked once their fields are good") {
  const Read read = read_cart(R"({"name": "c", "load": 0, "covered": true})");
  CHECK_FALSE(read.good);
  CHECK(read.problems ==
        "cart.json:1:37: error: /covered: an empty cart needs no cover\n"
        "  {\"name\": \"c\", \"load\": 0, \"covered\": true}\n"
        "                                      ^\n"
        "  help: load it\n");
  CHECK(read_cart(R"({"name": 1, "load": 0, "covered": true})").problems.find("needs no cover") ==
        std::string::npos);
}

TEST_CASE("A number without its unit is told which unit it was taken for") {
  const Read read = read_cart(R"({"name": "c", "front": {"spokes": 1, "size": 1e13}})");
  CHECK(read.problems.find("must be at most 1 TB, but is 10 TB") != std::string::npos);
  CHECK(read.problems.find("a number without a unit is in bytes; write it like \"80 GiB\"") !=
        std::string::npos);
}

TEST_CASE("An object may start from a name and change what differs") {
  const Read read = read_cart(R"({"name": "c", "front": {"base": "big", "size": "3 GB"}})");
  REQUIRE(read.good);
  CHECK(read.cart.front.spokes == 12);
  CHECK(read.cart.front.size_bytes == 3e9);
}

TEST_CASE("Names are expanded where they stand, and the result reads to the same") {
  const std::string text =
      R"({"name": "c", "front": {"base": "big", "size": "3 GB"}, "spare": ["big", "bug"]})";
  Problems problems;
  const JsonDocument document = parse_json(text, "cart.json", problems);
  JsonValue tree = document.root;
  cart_table().expand(tree, Reading(document.source, problems));
  CHECK(problems.empty());
  CHECK(to_text(tree, JsonLayout::Compact) ==
        R"({"name":"c","front":{"spokes":12,"size":"3 GB"},)"
        R"("spare":[{"spokes":12,"size":5000000000},"bug"]})");
  CHECK(tree.find("front")->find("spokes")->offset == text.find("\"big\""));
  CHECK(tree.find("front")->find("size")->offset == text.find("\"3 GB\""));
  CHECK(tree.find("spare")->items[0].find("size")->offset == text.rfind("\"big\""));
}

TEST_CASE("What a table writes it reads back") {
  Cart cart;
  cart.name = "new \"one\"";
  cart.load = 123456789012345;
  cart.share = 0.1;
  cart.colour = Colour::Red;
  cart.front = {9, 1.5};
  cart.spare = {{1, 2}, {3, 4}};
  cart.seats = {4, 5};
  const std::string text = to_text(cart_table().to_json(cart));
  const Read read = read_cart(text);
  INFO(read.problems);
  REQUIRE(read.good);
  CHECK(to_text(cart_table().to_json(read.cart)) == text);
  CHECK(text.find("tags") == std::string::npos);
}

TEST_CASE("A document with thousands of mistakes reports a bounded number") {
  std::string text = "{\"name\": \"c\"";
  for (int i = 0; i < 5000; ++i) text += ", \"key" + std::to_string(i) + "\": 0";
  Problems problems;
  const JsonDocument document = parse_json(text + "}", "cart.json", problems);
  Reading reading(document.source, problems);
  Cart cart;
  CHECK_FALSE(cart_table().read(document.root, reading, cart));
  CHECK(problems.count() == Reading::kMostProblems);
  CHECK(problems.all().back().message == "too many problems; those after are not shown");
}

TEST_CASE("The schema of a table names its fields, ranges and definitions") {
  const JsonValue schema = json_schema(cart_table(), "a cart");
  CHECK(schema.find("$schema")->text == "https://json-schema.org/draft/2020-12/schema");
  CHECK(schema.find("title")->text == "a cart");
  CHECK(schema.find("additionalProperties")->boolean == false);
  const JsonValue& fields = *schema.find("properties");
  CHECK(fields.members.size() == 9);
  CHECK(fields.find("share")->find("maximum")->number == 1);
  CHECK(fields.find("load")->find("default")->integer == 7);
  CHECK(fields.find("front")->find("$ref")->text == "#/$defs/wheel");
  CHECK(schema.find("$defs")->find("wheel") != nullptr);
  CHECK(schema.find("required")->items[0].text == "name");
}

TEST_CASE("Every default of the shared nouns is readable by its own table") {
  const auto check = [](const Table& table, std::initializer_list<const char*> required) {
    JsonValue defaults = table.defaults();
    for (const char* key : required) CHECK(defaults.find(key) != nullptr);
    Problems problems;
    const JsonDocument document = parse_json(to_text(defaults), "defaults", problems);
    Reading reading(document.source, problems);
    return std::pair{document, problems.text()};
  };
  Problems problems;
  {
    auto [document, parsed] = check(plan_table(), {"tp", "rank_order", "overlap"});
    Reading reading(document.source, problems);
    Plan plan;
    CHECK(plan_table().read(document.root, reading, plan));
  }
  {
    auto [document, parsed] = check(model_table(), {"layers", "qkv_bias"});
    Reading reading(document.source, problems);
    Model model;
    CHECK(model_table().read(document.root, reading, model));
  }
  INFO(problems.text());
  CHECK(problems.empty());
}

TEST_CASE("The order of ranks is read and written") {
  std::array<Axis, kAxisCount> order{};
  CHECK(parse_rank_order("pp-dp-cp-tp", order).empty());
  CHECK(order ==
        std::array<Axis, kAxisCount>{Axis::Pipeline, Axis::Data, Axis::Context, Axis::Tensor});
  CHECK(rank_order_text(order) == "pp-dp-cp-tp");
  for (const char* wrong : {"", "tp", "tp-cp-dp", "tp-tp-dp-pp", "tp-cp-dp-pp-ep", "tp-cp-dp-pp-",
                            "tp--cp-dp-pp", "TP-cp-dp-pp"})
    CHECK_FALSE(parse_rank_order(wrong, order).empty());
}

}  // namespace
}  // namespace rehearse
