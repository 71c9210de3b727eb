"""fio on files of the mount, one workload a file, and on the same bytes as plain files: the limit."""
