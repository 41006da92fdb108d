#pragma once
// Catch2 3 splits its header and moves Approx into a namespace; 2 has one header.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif
