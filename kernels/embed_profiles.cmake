# Writes OUTPUT, a source file that holds the text of every profile in FOLDER.
# Run as: cmake -DFOLDER=… -DOUTPUT=… -P embed_profiles.cmake
file(GLOB profiles ${FOLDER}/*.json)
list(SORT profiles)
set(source "#include \"kernels/embedded_profiles.h\"\n\nnamespace rehearse {\n\n")
string(APPEND source "const std::vector<EmbeddedProfile>& embedded_profiles() {\n")
string(APPEND source "  static const std::vector<EmbeddedProfile> all = {\n")
foreach(profile IN LISTS profiles)
  get_filename_component(name ${profile} NAME_WLE)
  file(READ ${profile} text)
  string(APPEND source "      {\"${name}\", R\"json(${text})json\"},\n")
endforeach()
string(APPEND source "  };\n  return all;\n}\n\n}  // namespace rehearse\n")
file(WRITE ${OUTPUT} "${source}")
