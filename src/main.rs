//! The `nct` program.

fn main() -> std::process::ExitCode {
    nct::cli::main()
}
