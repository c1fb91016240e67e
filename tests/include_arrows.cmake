# Who may include whom: cmake -D ROOT=<repository> -P include_arrows.cmake
# Fails with every #include that goes against the order of the folders.

cmake_minimum_required(VERSION 3.25)

set(folders app comm io jobs model)
# What a file of a folder may include, as regular expressions of paths from the root.
set(allowed_app "^(app|jobs|model|comm|io)/")
set(allowed_jobs "^(jobs|model|comm|io)/")
set(allowed_model "^(model|io|comm/device)/")
set(allowed_comm "^comm/")
set(allowed_io "^io/")

set(errors)
set(files_read 0)
foreach(folder IN LISTS folders)
  file(GLOB_RECURSE files RELATIVE ${ROOT} ${ROOT}/${folder}/*.[ch]pp ${ROOT}/${folder}/*.cuh
    ${ROOT}/${folder}/*.cu ${ROOT}/${folder}/*.h ${ROOT}/${folder}/*.inc)
  foreach(file IN LISTS files)
    math(EXPR files_read "${files_read} + 1")
    file(STRINGS ${ROOT}/${file} includes REGEX "^[ \t]*#[ \t]*include")
    foreach(include IN LISTS includes)
      if(include MATCHES "\"(.+)\"")
        set(path ${CMAKE_MATCH_1})
        if(NOT path MATCHES "${allowed_${folder}}")
          list(APPEND errors "${file} includes \"${path}\", which ${folder}/ may not use")
        elseif(NOT EXISTS ${ROOT}/${path})
          list(APPEND errors "${file} includes \"${path}\", which is no path from the root")
        endif()
      elseif(include MATCHES "<(.+)>")
        set(path ${CMAKE_MATCH_1})
        if(path STREQUAL "mpi.h" AND folder MATCHES "^(model|io)$")
          list(APPEND errors "${file} includes <mpi.h>: ${folder}/ knows no MPI")
        endif()
        if(path MATCHES "^(cuda|cublas|cudnn|curand|cusparse|cusolver|nccl|nvml|nvtx|cub/|thrust/)"
           AND NOT file MATCHES "(_cuda\\.|\\.cuh?$)")
          list(APPEND errors "${file} includes <${path}>: only *.cu and *_cuda.* see CUDA")
        endif()
      endif()
    endforeach()
  endforeach()
endforeach()

if(files_read EQUAL 0)
  message(FATAL_ERROR "no sources under '${ROOT}'")
endif()
if(errors)
  list(JOIN errors "\n" text)
  message("${text}")
  message(FATAL_ERROR "includes against the order of the folders: app -> jobs -> {model, comm, io}, "
    "model -> {io, comm/device}")
endif()
message("${files_read} files include what they may")
