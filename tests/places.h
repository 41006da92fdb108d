#pragma once
#include <string>

// Where the tests find the sources and what was built. Asked at run time, so that an object of a
// test is the same in every build folder, and a compiler cache has it once.
namespace rehearse {

const std::string& source_directory();  // without a slash at its end
const std::string& binary_directory();

}  // namespace rehearse
