# A room is one library with one purpose. orrery_room(NAME SOURCES ... DEPENDS ... LINKS ...) makes the target orrery_NAME;
# DEPENDS names the rooms it may include, which is how the direction of includes in docs/design/0001-house.md is kept.
# Every room links the public headers. LINKS are libraries from outside, private to the room.

add_library(orrery_options INTERFACE)
target_compile_features(orrery_options INTERFACE cxx_std_20)
set(orrery_cxx $<COMPILE_LANGUAGE:CXX>)
target_compile_options(orrery_options INTERFACE
  $<${orrery_cxx}:-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion>
  $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo -Xcompiler=-Wall,-Wextra,-Wshadow>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 and 13 see overlapping copies inside std::string where there are none (GCC bug 105651).
  target_compile_options(orrery_options INTERFACE $<${orrery_cxx}:-Wno-restrict>)
endif()
if(ORRERY_WARNINGS_AS_ERRORS)
  target_compile_options(orrery_options INTERFACE $<${orrery_cxx}:-Werror>
                         $<$<COMPILE_LANGUAGE:CUDA>:--Werror=all-warnings>)
endif()
if(ORRERY_SANITIZE)
  target_compile_options(orrery_options INTERFACE -fsanitize=${ORRERY_SANITIZE} -fno-omit-frame-pointer)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # With sanitizers GCC takes std::regex, which Catch2 uses, for reading what it has not set.
    target_compile_options(orrery_options INTERFACE -Wno-maybe-uninitialized)
  endif()
  target_link_options(orrery_options INTERFACE -fsanitize=${ORRERY_SANITIZE})
endif()

add_library(orrery_headers INTERFACE)
target_include_directories(orrery_headers INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_compile_features(orrery_headers INTERFACE cxx_std_20)

set_property(GLOBAL PROPERTY ORRERY_ROOMS "")

function(orrery_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;DEPENDS;LINKS" ${ARGN})
  add_library(orrery_${name} STATIC ${ROOM_SOURCES})
  add_library(orrery::${name} ALIAS orrery_${name})
  set_target_properties(orrery_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(orrery_${name} PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(orrery_${name} PUBLIC orrery_headers PRIVATE $<BUILD_INTERFACE:orrery_options>)
  foreach(room IN LISTS ROOM_DEPENDS)
    target_link_libraries(orrery_${name} PUBLIC orrery_${room})
  endforeach()
  target_link_libraries(orrery_${name} PRIVATE ${ROOM_LINKS})
  set_property(GLOBAL APPEND PROPERTY ORRERY_ROOMS orrery_${name})
endfunction()
