# SPDX-License-Identifier: Apache-2.0
# Turns the numbered SQL files of schemas/control, tenant and upgrade into C arrays, so that the
# binary carries its schemas. Run at build time: cmake -DSCHEMAS=dir -DOUTPUT=file.c -P this.
cmake_minimum_required(VERSION 3.25)

function(embed_folder folder out)
  file(GLOB files ${SCHEMAS}/${folder}/*.sql)
  list(SORT files)
  set(texts "")
  set(rows "")
  set(count 0)
  set(last 0)
  foreach(file ${files})
    get_filename_component(name ${file} NAME)
    if(NOT name MATCHES "^([0-9][0-9][0-9])-[a-z0-9_-]+\\.sql$")
      message(FATAL_ERROR "schemas/${folder}/${name}: the name is not of the form NNN-words.sql")
    endif()
    # Without its leading zeros: C would read 010 as eight.
    string(REGEX REPLACE "^0+" "" number "${CMAKE_MATCH_1}")
    if(NOT number OR NOT number GREATER last)
      message(FATAL_ERROR "schemas/${folder}/${name}: the number is 0 or taken")
    endif()
    set(last ${number})
    # As hex digits: no character of the file can then be taken for one of CMake's or of C's.
    file(READ ${file} hex HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
    string(APPEND texts "static const char s_${folder}_${number}[] = {${bytes}'\\0'};\n")
    string(APPEND rows "    {${number}, \"${name}\", s_${folder}_${number}},\n")
    math(EXPR count "${count} + 1")
  endforeach()
  set(${out} "${texts}\nconst dkt_schema_step_t dkt_schema_${folder}[] = {\n${rows}    {0, NULL, NULL},\n};\nconst int dkt_schema_${folder}_count = ${count};\n\n" PARENT_SCOPE)
endfunction()

embed_folder(control control)
embed_folder(tenant tenant)
embed_folder(upgrade upgrade)
file(WRITE ${OUTPUT} "/* Generated from schemas/ by cmake/embed_sql.cmake. */
#include \"lib/edge/schema.h\"

#include <stddef.h>

${control}${tenant}${upgrade}")
