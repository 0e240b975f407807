# lowbeam_embed(OUTPUT_VARIABLE FILE SYMBOL): a C source that holds FILE's bytes and a NUL as
# `const char SYMBOL[]`, and `const size_t SYMBOL_n` without the NUL; made anew when FILE changes.
if(CMAKE_SCRIPT_MODE_FILE) # as a script: cmake -DIN=FILE -DOUT=SOURCE -DSYMBOL=NAME -P embed.cmake
    file(READ ${IN} hex HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
    string(REPLACE "'\\x0a'," "'\\x0a',\n    " bytes "${bytes}") # a line of the file is a line of the source
    file(WRITE ${OUT} "#include <stddef.h>\nextern const char ${SYMBOL}[];\nextern const size_t ${SYMBOL}_n;\n"
         "const char ${SYMBOL}[] = {\n    ${bytes}0};\nconst size_t ${SYMBOL}_n = sizeof ${SYMBOL} - 1;\n")
    return()
endif()

set(LOWBEAM_EMBED_SCRIPT ${CMAKE_CURRENT_LIST_FILE})
function(lowbeam_embed output file symbol)
    set(source ${CMAKE_BINARY_DIR}/embedded/${symbol}.c)
    add_custom_command(OUTPUT ${source}
                       COMMAND ${CMAKE_COMMAND} -DIN=${PROJECT_SOURCE_DIR}/${file} -DOUT=${source} -DSYMBOL=${symbol}
                               -P ${LOWBEAM_EMBED_SCRIPT}
                       DEPENDS ${PROJECT_SOURCE_DIR}/${file} ${LOWBEAM_EMBED_SCRIPT} VERBATIM)
    set(${output} ${source} PARENT_SCOPE)
endfunction()
