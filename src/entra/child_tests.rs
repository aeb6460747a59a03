use super::super::scratch::Scratch;
use super::*;

/// How long a failing test may take.
const LONG: Duration = Duration::from_secs(60);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn program_gets_no_input_and_works_in_the_root_folder() {
    let scratch = Scratch::new();
    let program = scratch.program("tool", "cat; pwd; echo \"$1 $2\"; echo no >&2; exit 3");
    let output = run(&program, &["a b", "$HOME"], LONG).unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stdout), "/\na b $HOME\n");
    assert_eq!(text(&output.stderr), "no\n");
}

#[test]
fn program_that_takes_too_long_is_ended_with_all_that_it_started() {
    let scratch = Scratch::new();
    let marks = scratch.join("pids");
    let script = format!(
        "sleep 600 & echo $! > {0}.new; mv {0}.new {0}; sleep 600",
        marks.display()
    );
    let program = scratch.program("tool", &script);
    let start = Instant::now();
    let failure = run(&program, &[], Duration::from_secs(2))
        .map(drop)
        .unwrap_err();
    assert!(matches!(failure, Failure::TimeLimit), "{failure:?}");
    assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
    let pid = std::fs::read_to_string(&marks).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    while !is_dead(pid) {
        assert!(start.elapsed() < LONG, "the grandchild lives on");
        thread::yield_now();
    }
}

/// Whether there is no such process, or only what is left of it for its parent to collect.
fn is_dead(pid: rustix::process::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    rustix::process::test_kill_process(pid).is_err() || stat.is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn program_that_prints_too_much_is_ended() {
    let scratch = Scratch::new();
    let start = Instant::now();
    for stream in ["", ">&2"] {
        let script = format!("while :; do printf '%01024d' 0 {stream}; done");
        let program = scratch.program("tool", &script);
        let failure = run(&program, &[], LONG).map(drop).unwrap_err();
        assert!(matches!(failure, Failure::Flood), "{failure:?}");
    }
    assert!(start.elapsed() < LONG);
}

#[test]
fn what_a_program_printed_is_taken_although_another_holds_its_pipe() {
    let scratch = Scratch::new();
    // It ends by itself once the test's folder is gone.
    let wait = format!("while test -e {}; do sleep 0.1; done", scratch.display());
    let program = scratch.program("tool", &format!("({wait}) & echo token"));
    let start = Instant::now();
    let output = run(&program, &[], LONG).unwrap();
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), "token\n");
    assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
}

#[test]
fn program_that_closes_its_output_and_goes_on_is_ended_in_time() {
    let scratch = Scratch::new();
    let program = scratch.program("tool", "exec >&- 2>&-; sleep 600");
    let failure = run(&program, &[], Duration::from_millis(300))
        .map(drop)
        .unwrap_err();
    assert!(matches!(failure, Failure::TimeLimit), "{failure:?}");
}

#[test]
fn program_that_cannot_be_started_is_no_time_limit() {
    let scratch = Scratch::new();
    let program = scratch.join("tool");
    std::fs::write(&program, "no program").unwrap();
    let failure = run(&program, &[], LONG).map(drop).unwrap_err();
    assert!(matches!(failure, Failure::Start(_)), "{failure:?}");
}

#[test]
fn program_is_found_in_absolute_folders_of_the_path_alone() {
    let scratch = Scratch::new();
    let (first, second) = (scratch.join("first"), scratch.join("second"));
    for folder in [&first, &second] {
        std::fs::create_dir(folder).unwrap();
    }
    let wanted = scratch.program("second/az", "");
    // No program: a folder, and a file that may not be run.
    std::fs::create_dir(first.join("az")).unwrap();
    std::fs::write(first.join("azd"), "").unwrap();
    let path = |folders: &[&Path]| std::env::join_paths(folders).unwrap();
    let whole = path(&[
        Path::new(""),
        Path::new("."),
        Path::new("first"),
        &first,
        &second,
    ]);
    assert_eq!(find(&["az"], &whole), Some(wanted));
    assert_eq!(find(&["azd"], &whole), None);
    // The same folder, by a path from the current one.
    let current = std::env::current_dir().unwrap();
    let up: PathBuf = current.components().skip(1).map(|_| "..").collect();
    let relative = up.join(second.strip_prefix("/").unwrap());
    assert!(relative.join("az").exists());
    assert_eq!(find(&["az"], relative.as_os_str()), None);
}
