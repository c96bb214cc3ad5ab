//! The `madd-prof` program: everything is in [`madd_prof::cli`].

fn main() -> std::process::ExitCode {
    madd_prof::cli::main()
}
