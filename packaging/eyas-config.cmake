# find_package(eyas CONFIG REQUIRED), then target_link_libraries(program eyas::eyas).
# Installed as PREFIX/share/cmake/eyas/eyas-config.cmake.
include(CMakeFindDependencyMacro)
find_dependency(nlohmann_json)
find_dependency(OpenMP)
find_dependency(Threads)

# These have no CMake package on Debian 12, or one that wants OpenCL besides (oneDNN's).
find_path(EYAS_XXHASH_INCLUDE xxhash.h)
find_path(EYAS_DEFLATE_INCLUDE libdeflate.h)
find_path(EYAS_DNNL_INCLUDE dnnl.h)
find_library(EYAS_DEFLATE_LIBRARY deflate)
find_library(EYAS_DNNL_LIBRARY dnnl)
find_library(EYAS_CRYPT_LIBRARY crypt)
foreach(_eyas_needed XXHASH_INCLUDE DEFLATE_INCLUDE DNNL_INCLUDE DEFLATE_LIBRARY DNNL_LIBRARY CRYPT_LIBRARY)
  if(NOT EYAS_${_eyas_needed})
    set(eyas_FOUND FALSE)
    set(eyas_NOT_FOUND_MESSAGE
        "EYAS_${_eyas_needed} was not found: install oneDNN, libdeflate, xxHash and libcrypt")
    return()
  endif()
endforeach()

if(NOT TARGET eyas::eyas)
  get_filename_component(_eyas_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
  add_library(eyas::eyas INTERFACE IMPORTED)
  target_include_directories(eyas::eyas INTERFACE "${_eyas_prefix}/include")
  target_include_directories(
    eyas::eyas SYSTEM INTERFACE "${EYAS_XXHASH_INCLUDE}" "${EYAS_DEFLATE_INCLUDE}" "${EYAS_DNNL_INCLUDE}")
  target_compile_features(eyas::eyas INTERFACE cxx_std_20)
  target_link_libraries(
    eyas::eyas INTERFACE nlohmann_json::nlohmann_json OpenMP::OpenMP_CXX Threads::Threads
                         "${EYAS_DNNL_LIBRARY}" "${EYAS_DEFLATE_LIBRARY}" "${EYAS_CRYPT_LIBRARY}")
endif()
