# make install, and the packages that projects find. For C++ orrery::orrery, over all rooms; for C orrery::c, which is
# liborrery.so. find_package(orrery) takes them as the components cxx and c, pkg-config as orrery and orrery-c.
include(CMakePackageConfigHelpers)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/orrery)
get_property(rooms GLOBAL PROPERTY ORRERY_ROOMS)
install(TARGETS orrery_c EXPORT orrery-c LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS orrery orrery_headers ${rooms} EXPORT orrery-cxx ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/orrery DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
foreach(component c cxx)
  install(EXPORT orrery-${component} NAMESPACE orrery:: FILE orrery-${component}-targets.cmake
          DESTINATION ${package_folder})
endforeach()

# What the rooms link from outside: as packages for CMake, as files for pkg-config.
set(ORRERY_CXX_PACKAGES Threads HWY)
set(outside -pthread $<TARGET_LINKER_FILE:hwy::hwy>)
if(ORRERY_MPI)
  list(APPEND ORRERY_CXX_PACKAGES MPI)
  list(APPEND outside ${MPI_CXX_LIBRARIES})
endif()
if(ORRERY_CUDA)
  list(APPEND ORRERY_CXX_PACKAGES CUDAToolkit)
  list(APPEND outside $<TARGET_LINKER_FILE:CUDA::cudart_static> -ldl -lrt)
endif()
if(ORRERY_NCCL)
  list(APPEND ORRERY_CXX_PACKAGES NCCL)
  list(APPEND outside ${NCCL_LIBRARY})
  install(FILES ${CMAKE_CURRENT_LIST_DIR}/FindNCCL.cmake DESTINATION ${package_folder})
endif()
list(JOIN ORRERY_CXX_PACKAGES " " ORRERY_CXX_PACKAGES)

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/orrery-config.cmake.in
  ${PROJECT_BINARY_DIR}/orrery-config.cmake INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/orrery-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/orrery-config.cmake ${PROJECT_BINARY_DIR}/orrery-config-version.cmake
        DESTINATION ${package_folder})

# orrery_pkg_config(NAME LANGUAGE LIBRARY...)
file(RELATIVE_PATH ORRERY_PREFIX_FROM_PC /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
function(orrery_pkg_config PC_NAME PC_LANGUAGE)
  list(JOIN ARGN " " PC_LIBS)
  configure_file(${CMAKE_CURRENT_FUNCTION_LIST_DIR}/orrery.pc.in ${PROJECT_BINARY_DIR}/${PC_NAME}.pc.gen @ONLY)
  file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/${PC_NAME}.pc INPUT ${PROJECT_BINARY_DIR}/${PC_NAME}.pc.gen)
  install(FILES ${PROJECT_BINARY_DIR}/${PC_NAME}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endfunction()
list(TRANSFORM rooms PREPEND -l OUTPUT_VARIABLE room_libraries)
orrery_pkg_config(orrery C++ -Wl,--start-group ${room_libraries} -Wl,--end-group ${outside})
orrery_pkg_config(orrery-c C -lorrery)

if(TARGET orrery_program)
  install(TARGETS orrery_program DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
