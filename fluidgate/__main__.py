from fluidgate.cli import main

main()
