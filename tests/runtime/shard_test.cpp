#include <nlohmann/json.hpp>

#include "runtime/child_process.h"
#include "runtime/shard_merge.h"
#include "runtime/shard_run.h"
#include "tests/catch.h"
#include "tests/places.h"

using namespace rehearse;

namespace {

std::string document(const std::vector<std::string>& names, const std::string& title = "t") {
  nlohmann::ordered_json json{{"schema", "result/1"}, {"title", title}};
  json["variants"] = nlohmann::ordered_json::array();
  for (const auto& name : names) json["variants"].push_back({{"name", name}, {"step_time_s", 0.1}});
  return json.dump(2) + "\n";
}

ShardReport share(int exit_code, const std::string& text, const std::string& messages = "") {
  return {.exit_code = exit_code, .document = text, .messages = messages};
}

ShardRun parsed(std::vector<std::string> arguments) { return parse_shard_run(arguments); }

}  // namespace

TEST_CASE("the shares' documents make the document of the whole, byte for byte") {
  CHECK(merged_document({share(0, document({"a", "b"})), share(0, document({"c"})),
                         share(0, document({}))}) == document({"a", "b", "c"}));
}

TEST_CASE("numbers come through the merge as they were printed") {
  const std::string text =
      "{\n  \"schema\": \"result/1\",\n  \"variants\": [\n    "
      "0.1,\n    1e-09,\n    3.0,\n    12345678901234567,\n    "
      "0.30000000000000004\n  ]\n}\n";
  CHECK(merged_document({share(0, text)}) == text);
}

TEST_CASE("shares of different runs are not merged") {
  CHECK_THROWS_WITH(
      merged_document({share(0, document({"a"}, "one")), share(0, document({"b"}, "two"))}),
      "share 2 of 2 disagrees with the first share about \"title\"");
}

TEST_CASE("a share that prints something else is named") {
  CHECK_THROWS_WITH(merged_document({share(0, document({"a"})), share(0, "Segmentation fault")}),
                    "share 2 of 2 did not print a result/1 document");
  CHECK_THROWS_WITH(merged_document({share(0, "{\"schema\": \"plan/1\"}")}),
                    "share 1 of 1 did not print a result/1 document");
  CHECK_THROWS_WITH(merged_document({share(0, "{\"schema\": \"result/1\"}")}),
                    "share 1 of 1 printed a result/1 document without variants");
}

TEST_CASE("a failure of any share is the failure of the whole") {
  CHECK(merged_exit_code({share(0, document({"a"})), share(2, "")}) == 2);
  CHECK(merged_exit_code({share(139, ""), share(2, "")}) == 139);
  CHECK(merged_exit_code({share(3, document({"a"})), share(1, "")}) == 1);
}

TEST_CASE("the whole is infeasible only if no share found a plan that fits") {
  CHECK(merged_exit_code({share(3, document({"a"})), share(0, document({"b"}))}) == 0);
  CHECK(merged_exit_code({share(3, document({"a"})), share(3, document({"b"}))}) == 3);
  CHECK(merged_exit_code({share(3, document({"a"})), share(0, document({}))}) == 3);
  CHECK(merged_exit_code({share(0, document({"a"})), share(0, document({}))}) == 0);
}

TEST_CASE("what all shares say is said once") {
  CHECK(merged_messages({share(2, "", "x.json:3: error\n"), share(2, "", "x.json:3: error\n"),
                         share(1, "", "no memory\n"), share(0, "")}) ==
        "x.json:3: error\nno memory\n");
}

TEST_CASE("every rank gets its share's command") {
  const ShardRun run = parsed({"a.json", "--program", "/opt/rehearse", "--fidelity", "full", "-f"});
  CHECK(run.force);
  CHECK(run.json == "-");
  CHECK(shard_command(run, 1, 4) == std::vector<std::string>{"/opt/rehearse", "run", "a.json",
                                                             "--fidelity", "full", "--quiet",
                                                             "--json", "-", "--shard", "2/4"});
}

TEST_CASE("the program beside this one is the default") {
  CHECK(parsed({"a.json"}).program == binary_directory() + "/rehearse");
}

TEST_CASE("options that cannot be spread, or lack something, are refused") {
  CHECK_THROWS_WITH(parsed({"a.json", "--csv", "x"}), "--csv cannot be spread over ranks");
  CHECK_THROWS_WITH(parsed({"a.json", "--shard=1/2"}), "--shard cannot be spread over ranks");
  CHECK_THROWS_WITH(parsed({"a.json", "--program"}), "--program needs a value");
  CHECK_THROWS_WITH(parsed({}), "run needs a scenario file");
  CHECK_THROWS_WITH(parsed({"--fidelity", "full"}), "run needs a scenario file");
}

TEST_CASE("a child's streams and exit code are kept apart") {
  const ChildResult child = run_child({"/bin/sh", "-c", "echo out; echo err >&2; exit 7"});
  CHECK(child.exit_code == 7);
  CHECK(child.out == "out\n");
  CHECK(child.err == "err\n");
}

TEST_CASE("a child that writes megabytes to both streams does not stop half-way") {
  const ChildResult child =
      run_child({"/bin/sh", "-c", "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2"});
  CHECK(child.exit_code == 0);
  CHECK(child.out.size() == 3000000);
  CHECK(child.err.size() == 3000000);
}

TEST_CASE("a child ended by a signal is told by its exit code") {
  CHECK(run_child({"/bin/sh", "-c", "kill -SEGV $$"}).exit_code == 128 + 11);
}

TEST_CASE("a grandchild that keeps the streams open is not waited for") {
  const ChildResult child = run_child({"/bin/sh", "-c", "echo done; sleep 20 & exit 0"});
  CHECK(child.exit_code == 0);
  CHECK(child.out == "done\n");
}

TEST_CASE("a program that is not there is an error with its name") {
  CHECK_THROWS_WITH(run_child({"/no/such/program"}),
                    "cannot start /no/such/program: No such file or directory");
}
