#include <fmt/format.h>

#include "app/commands.h"
#include "app/output.h"

namespace rehearse {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

std::vector<std::string> option_names(const CommandInfo& command) {
  std::vector<std::string> names;
  for (const OptionInfo& option : command.options)
    names.insert(names.end(), option.names.begin(), option.names.end());
  return names;
}

std::string shell_quoted(const std::string& text) {
  std::string result = "'";
  for (char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

/// Words that may stand where a command's positional argument is expected; empty: files.
std::vector<std::string> positional_choices(const CommandInfo& command) {
  for (const OptionInfo& option : command.options)
    if (option.names.empty()) return option.choices;
  return {};
}

std::string bash_script(const CommandTree& tree) {
  std::vector<std::string> names;
  std::string cases, values;
  for (const CommandInfo& command : tree.commands) {
    names.push_back(command.name);
    const auto choices = positional_choices(command);
    cases += fmt::format("    {})\n      options=\"{}\"; words=\"{}\" ;;\n", command.name,
                         joined(option_names(command)), joined(choices));
    for (const OptionInfo& option : command.options)
      for (const std::string& name : option.names)
        if (!option.choices.empty())
          values += fmt::format(
              "    {}:{}) COMPREPLY=($(compgen -W \"{}\" -- \"$current\")); "
              "return ;;\n",
              command.name, name, joined(option.choices));
  }
  return fmt::format(R"(# bash completion of rehearse: source <(rehearse completion bash)
_rehearse() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
  local command="${{COMP_WORDS[1]}}" options="" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{} {}" -- "$current"))
    return
  fi
  case "$command:$previous" in
{}  esac
  case "$command" in
{}  esac
  if [[ "$current" == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$current"))
  elif [ -n "$words" ]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  else
    compopt -o filenames
    COMPREPLY=($(compgen -f -- "$current"))
  fi
}}
complete -F _rehearse rehearse
)",
                     joined(names), joined(option_names(tree.program)), values, cases);
}

std::string zsh_option(const OptionInfo& option) {
  std::string text;
  for (const std::string& name : option.names) {
    std::string spec = name + "[" + option.help + "]";
    if (!option.value.empty())
      spec += option.choices.empty() ? ":file:_files" : ":value:(" + joined(option.choices) + ")";
    text += " \\\n        " + shell_quoted(spec);
  }
  return text;
}

std::string zsh_script(const CommandTree& tree) {
  std::string names, cases;
  for (const CommandInfo& command : tree.commands) {
    names += "    " + shell_quoted(command.name + ":" + command.help) + "\n";
    cases += "    " + command.name + ")\n      _arguments";
    for (const OptionInfo& option : command.options) cases += zsh_option(option);
    const auto choices = positional_choices(command);
    cases += " \\\n        " +
             shell_quoted(choices.empty() ? "*:file:_files" : "1:value:(" + joined(choices) + ")");
    cases += " ;;\n";
  }
  return "#compdef rehearse\n# zsh completion of rehearse: source <(rehearse completion zsh)\n"
         "_rehearse() {\n  local -a commands\n  commands=(\n" +
         names +
         "  )\n  if (( CURRENT == 2 )); then\n    _describe command commands\n    return\n  fi\n"
         "  local command=$words[2]\n  shift words\n  (( CURRENT-- ))\n  case $command in\n" +
         cases + "  esac\n}\ncompdef _rehearse rehearse\n";
}

std::string fish_script(const CommandTree& tree) {
  std::string text =
      "# fish completion of rehearse: rehearse completion fish | source\n"
      "complete -c rehearse -n __fish_use_subcommand -f\n";
  for (const CommandInfo& command : tree.commands) {
    text += fmt::format("complete -c rehearse -n __fish_use_subcommand -a {} -d {}\n", command.name,
                        shell_quoted(command.help));
    const std::string when = shell_quoted("__fish_seen_subcommand_from " + command.name);
    for (const OptionInfo& option : command.options) {
      std::string line = "complete -c rehearse -n " + when;
      for (const std::string& name : option.names)
        line += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      if (!option.choices.empty())
        line += " -f" + std::string(option.names.empty() ? "" : " -r") + " -a " +
                shell_quoted(joined(option.choices));
      else if (!option.value.empty() && !option.names.empty())
        line += " -r";
      text += line + " -d " + shell_quoted(option.help) + "\n";
    }
  }
  return text;
}

/// troff treats these at the begin of a line, and backslashes, as its own.
std::string roff(const std::string& text) {
  std::string result;
  for (char c : text) {
    if (c == '\\')
      result += "\\e";
    else if (c == '-')
      result += "\\-";
    else
      result += c;
  }
  if (!result.empty() && (result[0] == '.' || result[0] == '\'')) result = "\\&" + result;
  return result;
}

std::string man_options(const CommandInfo& command) {
  std::string text;
  for (const OptionInfo& option : command.options) {
    std::string head;
    for (const std::string& name : option.names) head += (head.empty() ? "" : ", ") + name;
    if (!option.value.empty()) head += (head.empty() ? "" : " ") + option.value;
    text += ".TP\n.B " + roff(head) + "\n" + roff(option.help) + "\n";
  }
  return text;
}

}  // namespace

ExitCode completion_command(const CompletionOptions& options) {
  const CommandTree tree = command_tree();
  write_result("-",
               options.shell == "bash"  ? bash_script(tree)
               : options.shell == "zsh" ? zsh_script(tree)
                                        : fish_script(tree),
               false);
  return ExitCode::Done;
}

ExitCode man_command() {
  const CommandTree tree = command_tree();
  std::string text = ".TH REHEARSE 1 \"\" \"rehearse " + program_version() + "\"\n.SH NAME\n" +
                     "rehearse \\- " + roff(tree.program.help) +
                     "\n.SH SYNOPSIS\n.B rehearse\nCOMMAND [OPTION]... [FILE]...\n";
  text += ".SH COMMANDS\n";
  for (const CommandInfo& command : tree.commands)
    text += ".SS rehearse " + roff(command.name) + "\n" + roff(command.help) + ". " +
            roff(command.details) + "\n" + man_options(command);
  text +=
      ".SH EXIT STATUS\n0 done, 1 environment, 2 bad input or usage, 3 no plan fits,\n"
      "4 outside tolerance, 130 interrupted.\n";
  write_result("-", text, false);
  return ExitCode::Done;
}

}  // namespace rehearse
