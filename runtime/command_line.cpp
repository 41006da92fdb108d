#include "runtime/command_line.h"

#include <algorithm>
#include <iostream>

#include "plan/edit_distance.h"

namespace rehearse {
namespace {

void print_help(const Program& program, std::ostream& out) {
  out << program.name << ": " << program.summary << "\n\n";
  std::size_t width = 0;
  for (const auto& verb : program.verbs)
    width = std::max(width, verb.name.size() + 1 + verb.synopsis.size());
  for (const auto& verb : program.verbs) {
    const std::string head = verb.name + " " + verb.synopsis;
    out << "  " << program.name << ' ' << head << std::string(width - head.size() + 2, ' ')
        << verb.summary << '\n';
  }
  out << "  " << program.name << " --version\n";
}

int dispatch(const Program& program, Arguments arguments) {
  const std::string first = arguments.empty() ? "--help" : arguments.front();
  if (first == "--help" || first == "-h" || first == "help") {
    print_help(program, std::cout);
    return kExitDone;
  }
  if (first == "--version") {
    std::cout << program.version << '\n';
    return kExitDone;
  }
  std::vector<std::string> names{"--help", "--version"};
  for (const auto& verb : program.verbs) {
    if (verb.name == first) return verb.run(arguments.subspan(1));
    names.push_back(verb.name);
  }
  throw ArgumentError("there is no command '" + first + "'", meant(first, names));
}

}  // namespace

std::string meant(const std::string& text, const std::vector<std::string>& known) {
  const std::string near = did_you_mean(text, known);
  return near.empty() ? "" : "did you mean '" + near + "'?";
}

int run_program(const Program& program, Arguments arguments) {
  try {
    const int code = dispatch(program, arguments);
    std::cout.flush();
    if (!std::cout) throw std::runtime_error("standard output cannot be written to");
    return code;
  } catch (const ArgumentError& error) {
    std::cerr << program.name << ": error: " << error.what() << '\n';
    if (!error.hint.empty()) std::cerr << "help: " << error.hint << '\n';
    std::cerr << "help: " << program.name << " --help lists the commands\n";
    return kExitBadInput;
  } catch (const std::exception& error) {
    std::cerr << program.name << ": error: " << error.what() << '\n';
    return kExitEnvironment;
  }
}

}  // namespace rehearse
