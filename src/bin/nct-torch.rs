//! The part of the `nct` program that is linked with libtorch. `nct` becomes it for the commands that need a network.

fn main() -> std::process::ExitCode {
    nct::cli::main_with_torch()
}
