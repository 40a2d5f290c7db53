"""The command line, `pdeinfer`."""
