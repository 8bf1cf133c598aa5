"""One module a command of ``regrad``, each with its ``main(argv)``."""
