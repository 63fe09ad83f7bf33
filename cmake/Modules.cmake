# yumoe_library(NAME <name> [HEADERS <public header>...] [SOURCES <src>...]
#              [LINKS <yumoe target>...] [USES <third party>...])
#
# Declares one static library of the top-level folder (the module) it is written in.
# HEADERS are named relative to <module>/include/<module>/; USES is always private, so a
# third-party header never reaches a dependent. Four nets keep the arrows of MAY_LINK_<module>:
#   1. LINKS is checked against the table, and a target must exist before it is
#      linked, so declaration order alone keeps a module free of cycles.
#   2. Each module has its own include/ root: a header of a module that is not
#      linked is not on the include path, so the compiler refuses it.
#   3. <name>_linktest links the whole archive with only its declared LINKS, so
#      the linker refuses a symbol borrowed from anywhere else (target `linktests`).
#   4. With CMAKE_VERIFY_INTERFACE_HEADER_SETS=ON, the target all_verify_interface_header_sets
#      compiles every public header alone, with only what LINKS provides.
add_custom_target(linktests)

function(yumoe_library)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME" "HEADERS;SOURCES;LINKS;USES")
  cmake_path(RELATIVE_PATH CMAKE_CURRENT_SOURCE_DIR BASE_DIRECTORY ${PROJECT_SOURCE_DIR}
             OUTPUT_VARIABLE here)
  string(REGEX REPLACE "/.*" "" module "${here}")

  if(arg_SOURCES)
    add_library(${arg_NAME} STATIC ${arg_SOURCES})
    set(scope PUBLIC)
    target_compile_options(${arg_NAME} PRIVATE ${YUMOE_WARNINGS})
    target_include_directories(${arg_NAME} PRIVATE ${PROJECT_SOURCE_DIR}/${module})
  else()
    add_library(${arg_NAME} INTERFACE)
    set(scope INTERFACE)
  endif()
  set_target_properties(${arg_NAME} PROPERTIES YUMOE_MODULE ${module})
  target_include_directories(${arg_NAME} ${scope} ${PROJECT_SOURCE_DIR}/${module}/include)
  list(TRANSFORM arg_HEADERS PREPEND ${PROJECT_SOURCE_DIR}/${module}/include/${module}/)
  target_sources(${arg_NAME} ${scope} FILE_SET HEADERS
    BASE_DIRS ${PROJECT_SOURCE_DIR}/${module}/include FILES ${arg_HEADERS})

  foreach(dep IN LISTS arg_LINKS)
    if(NOT TARGET ${dep})
      message(FATAL_ERROR "${arg_NAME} links ${dep}, which is declared later or not at all: "
                          "a dependency must come first, so there is no cycle.")
    endif()
    get_target_property(dep_module ${dep} YUMOE_MODULE)
    if(NOT dep_module STREQUAL module AND NOT dep_module IN_LIST MAY_LINK_${module})
      message(FATAL_ERROR "${arg_NAME} (${module}) may not link ${dep} (${dep_module}). "
                          "Allowed: ${MAY_LINK_${module}}. See CMakeLists.txt.")
    endif()
  endforeach()
  target_link_libraries(${arg_NAME} ${scope} ${arg_LINKS})
  if(arg_SOURCES)
    target_link_libraries(${arg_NAME} PRIVATE ${arg_USES})
    add_executable(${arg_NAME}_linktest EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/cmake/linktest.cpp)
    target_link_libraries(${arg_NAME}_linktest PRIVATE
      $<LINK_LIBRARY:WHOLE_ARCHIVE,${arg_NAME}> ${arg_LINKS} ${arg_USES})
    add_dependencies(linktests ${arg_NAME}_linktest)
  endif()
endfunction()

# yumoe_program(NAME <name> SOURCES <src>... LINKS <yumoe target>... [USES <third party>...])
# An executable under build/<preset>/bin.
function(yumoe_program)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME" "SOURCES;LINKS;USES")
  add_executable(${arg_NAME} ${arg_SOURCES})
  target_compile_options(${arg_NAME} PRIVATE ${YUMOE_WARNINGS})
  target_include_directories(${arg_NAME} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(${arg_NAME} PRIVATE ${arg_LINKS} ${arg_USES})
  set_target_properties(${arg_NAME} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
endfunction()

# yumoe_test(NAME <name> SOURCES <src>... LINKS <target>... [USES <third party>...]
#            [LABEL fast|slow|system] [TIMEOUT <seconds>] [THREADS])
# A GoogleTest program. ctest sees it as one test: its cases are listed in its own output, and the
# suite starts one process a file instead of one a case. TIMEOUT is where a hang ends, not a speed bar.
# THREADS says that several threads are at work in it: the thread sanitizer runs it too.
function(yumoe_test)
  cmake_parse_arguments(PARSE_ARGV 0 arg "THREADS" "NAME;LABEL;TIMEOUT" "SOURCES;LINKS;USES")
  if(NOT arg_LABEL)
    set(arg_LABEL fast)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  add_executable(${arg_NAME} ${arg_SOURCES})
  target_compile_options(${arg_NAME} PRIVATE ${YUMOE_WARNINGS})
  target_include_directories(${arg_NAME} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${arg_NAME} PRIVATE
    YUMOE_SOURCE_DIR="${PROJECT_SOURCE_DIR}" YUMOE_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
  target_link_libraries(${arg_NAME} PRIVATE ${arg_LINKS} ${arg_USES} GTest::gmock_main)
  add_test(NAME ${arg_NAME} COMMAND ${arg_NAME} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(arg_THREADS)
    list(APPEND arg_LABEL threads)
    add_dependencies(tsan_tests ${arg_NAME})
  endif()
  set_tests_properties(${arg_NAME} PROPERTIES LABELS "${arg_LABEL}" TIMEOUT ${arg_TIMEOUT})
endfunction()
add_custom_target(tsan_tests)
