#pragma once
#include <string>

namespace rehearse {

/// What a gzip file (RFC 1952) packs, several members one after the other included; a text that is
/// none is handed back as it is. Throws std::runtime_error, with the path, where the file is cut
/// off or damaged, unpacks to more than a GiB, or this program was built without zlib.
std::string unpacked(std::string bytes, const std::string& path);

}  // namespace rehearse
