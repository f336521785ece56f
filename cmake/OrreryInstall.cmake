# make install, and the package that find_package(orrery) finds: orrery::orrery, over all rooms, for C++; and orrery::c,
# liborrery.so, for C.
include(CMakePackageConfigHelpers)

get_property(rooms GLOBAL PROPERTY ORRERY_ROOMS)
install(TARGETS orrery orrery_c orrery_headers ${rooms} EXPORT orrery
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/orrery DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT orrery NAMESPACE orrery:: FILE orrery-targets.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/orrery)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/orrery-config.cmake.in
  ${PROJECT_BINARY_DIR}/orrery-config.cmake INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/orrery)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/orrery-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/orrery-config.cmake ${PROJECT_BINARY_DIR}/orrery-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/orrery)
if(ORRERY_NCCL)  # for find_dependency(NCCL)
  install(FILES ${CMAKE_CURRENT_LIST_DIR}/FindNCCL.cmake DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/orrery)
endif()
if(TARGET orrery_program)
  install(TARGETS orrery_program DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
