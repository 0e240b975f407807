# cmake --install BUILD --prefix PREFIX (DESTDIR is honoured): programs, library, headers, pkg-config file, licences.
file(RELATIVE_PATH up_from_bin /${CMAKE_INSTALL_BINDIR} /${CMAKE_INSTALL_LIBDIR})
set_target_properties(lowbeam_program PROPERTIES
                      INSTALL_RPATH "$ORIGIN/${up_from_bin};$ORIGIN/${up_from_bin}/lowbeam")
set_target_properties(lowbeam PROPERTIES INSTALL_RPATH "$ORIGIN/lowbeam")
if(NOT LOWBEAM_BUNDLE_LLAMA)
    # A llama.cpp of the user's own stays where it is, and so do the run paths to it.
    set_target_properties(lowbeam_program lowbeam PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
endif()
install(TARGETS lowbeam lowbeam_program lowbeam-decode)
install(FILES include/lowbeam.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY include/lowbeam DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY prompts models DESTINATION ${CMAKE_INSTALL_DATADIR}/lowbeam)
install(FILES LICENSE docs/licences.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

file(RELATIVE_PATH LOWBEAM_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" LOWBEAM_PC_PREFIX "${LOWBEAM_PC_PREFIX}")
configure_file(cmake/lowbeam.pc.in ${CMAKE_BINARY_DIR}/lowbeam.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/lowbeam.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
