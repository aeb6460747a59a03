//! `azmutex run` typed into a shell with job control, on a terminal.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use azmutex::LeaseState;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::support::{
    PATIENCE, Scratch, Service, Written, azmutex, eventually, is_ignored, number, unique,
};
use crate::support::proxy::{Fault, FaultProxy, RequestHead};

const INTERRUPT: &str = "\x03";
const SUSPEND: &str = "\x1a";

/// A shell on a terminal of its own, which ends with the value.
struct Shell {
    child: Child,
    terminal: File,
    screen: Written,
    /// Up to where the screen was read.
    read: usize,
}

impl Shell {
    fn start(service: &Service) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags).expect("a terminal");
        grantpt(&terminal).expect("a terminal");
        unlockpt(&terminal).expect("a terminal");
        let name = ptsname(&terminal, Vec::new()).expect("its name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let there = rustix::fs::open(&name, flags, Mode::empty()).expect("its other end");
        let size = Winsize {
            ws_row: 50,
            ws_col: 200,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&terminal, size).expect("its size");
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a descriptor"));

        // `setsid --ctty` gives the shell a session whose terminal this is.
        let mut command = Command::new("setsid");
        command.arg("--ctty");
        if is_ignored(2) {
            // As in a background job of a script; who types into a shell has it otherwise.
            command.args(["env", "--default-signal"]);
        }
        command.args(["bash", "--norc", "--noprofile", "-i"]);
        service.prepare(&mut command);
        let child = command
            .env("PS1", "$ ")
            .env("TERM", "dumb")
            .env("HISTFILE", "")
            .env("AZ", azmutex())
            .stdin(end(&there))
            .stdout(end(&there))
            .stderr(end(&there))
            .spawn()
            .expect("setsid and bash");
        drop((there, command));
        let terminal = File::from(terminal);
        let (screen, _) = Written::collect(terminal.try_clone().expect("a descriptor"));
        let mut shell = Self {
            child,
            terminal,
            screen,
            read: 0,
        };
        shell.expect("$ ");
        shell
            .line("set -o notify; bind 'set enable-bracketed-paste off' 2>/dev/null; echo b''egin");
        shell.expect("begin");
        shell
    }

    /// Types keys.
    fn keys(&mut self, keys: &str) {
        self.terminal
            .write_all(keys.as_bytes())
            .expect("the terminal takes keys");
    }

    /// Types a line. What it prints has to differ from what it is, since the screen shows both.
    fn line(&mut self, line: &str) {
        self.keys(&format!("{line}\n"));
    }

    /// Waits until `text` comes up on the screen, and returns what did up to there.
    #[track_caller]
    fn expect(&mut self, text: &str) -> String {
        let (read, seen) = self.screen.wait_from(self.read, text);
        self.read = read;
        seen
    }

    /// Waits for a line `pid=N.`, which no line that is typed begins with.
    #[track_caller]
    fn expect_pid(&mut self) -> i32 {
        self.expect_number("pid")
    }

    /// The same for another name.
    #[track_caller]
    fn expect_number(&mut self, name: &str) -> i32 {
        self.expect(&format!("\n{name}="));
        let value = self.expect(".");
        number(&format!("{name}={value}"), name)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A script that says when it is ready, and then reads a line from its input.
const READ: &str = "'echo r\"\"eady; read line; echo g\"\"ot-$line'";

#[test]
fn interrupt_key_reaches_the_command_once() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let lock = unique("tty");
    let script = "'trap \"echo h\"\"eard; exit 5\" INT; echo r\"\"eady; while :; do sleep 1; done'";
    for group in ["auto", "own", "shared"] {
        shell.line(&format!(
            "$AZ run --process-group {group} {lock} -c {script}; echo rc=$?."
        ));
        shell.expect("ready");
        shell.keys(INTERRUPT);
        let seen = shell.expect("rc=5.");
        assert_eq!(seen.matches("heard").count(), 1, "{group}: {seen}");
        assert!(service.state(&lock).is_free());
    }
}

#[test]
fn command_that_dies_of_the_interrupt_key_is_130_to_the_shell() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    shell.line(&format!(
        "$AZ run {} -c 'echo r\"\"eady; exec sleep 1000'",
        unique("tty")
    ));
    shell.expect("ready");
    shell.keys(INTERRUPT);
    shell.expect("\n$ ");
    shell.line("echo rc=$?.");
    shell.expect("rc=130.");
}

#[test]
fn command_reads_the_terminal() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    shell.line(&format!("$AZ run {} -c {READ}; echo rc=$?.", unique("tty")));
    shell.expect("ready");
    shell.line("abc");
    shell.expect("got-abc");
    shell.expect("rc=0.");
}

#[test]
fn suspended_command_goes_on_in_the_foreground() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    for group in ["auto", "shared"] {
        let lock = unique("tty");
        shell.line(&format!(
            "$AZ run --process-group {group} {lock} -c {READ}; echo rc=$?."
        ));
        shell.expect("ready");
        shell.keys(SUSPEND);
        shell.expect(&format!("suspended; {lock} runs out in "));
        shell.expect("Stopped");
        shell.line("echo s''till here");
        shell.expect("still here");
        assert_eq!(service.state(&lock), LeaseState::Leased);
        shell.line("fg; echo end=$?.");
        shell.expect("$AZ run");
        shell.line("abc");
        shell.expect("got-abc");
        shell.expect("end=0.");
        assert!(service.state(&lock).is_free());
    }
}

#[test]
fn suspended_command_goes_on_in_the_background() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let lock = unique("tty");
    let scratch = Scratch::new();
    let go = scratch.file("go");
    // No loop that starts processes: a shell that is just starting one cannot be stopped.
    shell.line(&format!(
        "mkfifo {0}; $AZ run {lock} -c 'echo r\"\"eady; read line <{0}; exit 3'",
        go.display()
    ));
    shell.expect("ready");
    shell.keys(SUSPEND);
    shell.expect("Stopped");
    shell.line("bg; echo b''g=$?.");
    shell.expect("bg=0.");
    std::fs::write(&go, "\n").expect("a reader");
    shell.line("wait %1; echo end=$?.");
    shell.expect("end=3.");
    assert!(service.state(&lock).is_free());
}

#[test]
fn command_whose_lock_was_lost_while_it_was_suspended_does_nothing_more() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let lock = unique("tty");
    shell.line(&format!("$AZ run {lock} -c 'trap \"echo w\"\"oken\" CONT TERM; echo r\"\"eady; read line; echo w\"\"oken'"));
    shell.expect("ready");
    shell.keys(SUSPEND);
    shell.expect("Stopped");
    service
        .mutex()
        .break_lease(&lock, Some(Duration::ZERO))
        .unwrap();
    let rival = service.locker(&lock).lock().unwrap();
    shell.line("fg; echo end=$?.");
    let seen = shell.expect("end=121.");
    assert!(!seen.contains("woken"), "{seen}");
    assert!(
        seen.contains("the lease ID is no longer the blob's"),
        "{seen}"
    );
    drop(rival);
}

#[test]
fn lock_is_released_while_suspended_if_that_is_asked_for() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let lock = unique("tty");
    shell.line(&format!(
        "$AZ run --on-suspend=release {lock} -c {READ}; echo rc=$?."
    ));
    shell.expect("ready");
    shell.keys(SUSPEND);
    shell.expect("Stopped");
    let rival = service.locker(&lock).try_lock().expect("it was released");
    shell.line("fg; echo end=$?.");
    shell.expect("waiting for ");
    drop(rival);
    shell.expect("acquired ");
    shell.line("abc");
    shell.expect("got-abc");
    shell.expect("end=0.");
}

#[test]
fn permit_that_was_released_while_suspended_is_the_same_one_again() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let lock = unique("tty");
    let script = "'echo slot=$AZMUTEX_SLOT.; read line; echo g\"\"ot-$line'";
    shell.line(&format!(
        "$AZ run --slots 8 --on-suspend=release {lock} -c {script}; echo rc=$?."
    ));
    let seen = shell.expect_number("slot");
    let permit = format!("{lock}.slot{seen}");
    shell.keys(SUSPEND);
    shell.expect("Stopped");
    // The command has been told its number, so no other one will do.
    let rival = service.locker(&permit).try_lock().expect("it was released");
    shell.line("fg; echo end=$?.");
    shell.expect("waiting for ");
    drop(rival);
    shell.expect("acquired ");
    assert_eq!(service.state(&permit), LeaseState::Leased);
    shell.line("abc");
    shell.expect("got-abc");
    shell.expect("end=0.");
    assert!(service.state(&permit).is_free());
}

#[test]
fn several_locks_that_were_released_while_suspended_are_acquired_again() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let [one, other] = ["tty", "tty"].map(unique);
    shell.line(&format!(
        "$AZ run --also {other} --on-suspend=release {one} -c {READ}; echo rc=$?."
    ));
    shell.expect("ready");
    shell.keys(SUSPEND);
    shell.expect("Stopped");
    let rival = service.locker(&other).try_lock().expect("it was released");
    assert!(service.state(&one).is_free());
    shell.line("fg; echo end=$?.");
    shell.expect(&format!("waiting for {other}"));
    drop(rival);
    shell.expect("acquired ");
    shell.line("abc");
    shell.expect("got-abc");
    shell.expect("end=0.");
    for lock in [&one, &other] {
        assert!(service.state(lock).is_free());
    }
}

#[test]
fn lock_that_was_lost_while_suspended_is_named_among_several() {
    let service = Service::emulator();
    for lost in [0, 1] {
        let mut shell = Shell::start(&service);
        let locks = ["tty", "tty"].map(unique);
        let [one, other] = &locks;
        shell.line(&format!("$AZ run --also {other} {one} -c {READ}"));
        shell.expect("ready");
        shell.keys(SUSPEND);
        shell.expect("Stopped");
        let mutex = service.mutex();
        mutex
            .break_lease(&locks[lost], Some(Duration::ZERO))
            .unwrap();
        let rival = service.locker(&locks[lost]).lock().unwrap();
        shell.line("fg; echo end=$?.");
        let seen = shell.expect("end=121.");
        let text = format!("lock {} lost: the lease ID is no longer", locks[lost]);
        assert!(seen.contains(&text), "{seen}");
        assert!(!seen.contains("got-"), "{seen}");
        drop(rival);
    }
}

#[test]
fn work_that_was_done_while_it_was_suspended_is_not_done_again() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let lock = unique("tty");
    shell.line(&format!(
        "$AZ once --on-suspend=release {lock} -c {READ}; echo rc=$?."
    ));
    shell.expect("ready");
    shell.keys(SUSPEND);
    shell.expect("Stopped");
    shell.line(&format!(
        "$AZ once {lock} echo other-r''an; echo o''ther=$?."
    ));
    shell.expect("other-ran");
    shell.expect("other=0.");
    shell.line("fg; echo end=$?.");
    let seen = shell.expect("end=121.");
    assert!(seen.contains("it was done meanwhile"), "{seen}");
    assert!(!seen.contains("got-"), "{seen}");
}

#[test]
fn command_that_is_killed_while_its_lock_is_waited_for_again_is_the_end() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let lock = unique("tty");
    shell.line(&format!(
        "$AZ run --on-suspend=release {lock} -c 'echo pid=$$.; read line'; echo rc=$?."
    ));
    let pid = shell.expect_pid();
    shell.keys(SUSPEND);
    shell.expect("Stopped");
    let rival = service.locker(&lock).try_lock().expect("it was released");
    shell.line("fg; echo end=$?.");
    shell.expect("waiting for ");
    let pid = Pid::from_raw(pid).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    shell.expect("end=137.");
    drop(rival);
    assert!(service.state(&lock).is_free());
}

#[test]
fn suspend_key_while_the_lock_is_waited_for_again_stops_and_goes_on() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let lock = unique("tty");
    shell.line(&format!(
        "$AZ run --on-suspend=release {lock} -c {READ}; echo rc=$?."
    ));
    shell.expect("ready");
    shell.keys(SUSPEND);
    shell.expect("Stopped");
    let rival = service.locker(&lock).try_lock().expect("it was released");
    shell.line("fg; echo end=$?.");
    shell.expect("waiting for ");
    shell.keys(SUSPEND);
    shell.expect("Stopped");
    drop(rival);
    shell.line("fg; echo end=$?.");
    shell.expect("$AZ run");
    shell.line("abc");
    shell.expect("got-abc");
    shell.expect("end=0.");
}

#[test]
fn signal_during_the_release_for_a_suspended_command_is_not_lost() {
    let service = Service::emulator();
    let proxy = FaultProxy::start(service.addr());
    let is_release = |request: &RequestHead| request.lease_action() == Some("release");
    proxy.always_when(is_release, Fault::HangBefore);
    let mut shell = Shell::start(&Service::at(proxy.connection_string()));
    let lock = unique("tty");
    shell.line(&format!(
        "$AZ run --on-suspend=release {lock} -c 'echo pid=$AZMUTEX_PID.; read line'; echo rc=$?."
    ));
    let pid = shell.expect_pid();
    shell.keys(SUSPEND);
    proxy.wait_for(1, |seen| is_release(&seen.request), PATIENCE);
    let pid = Pid::from_raw(pid).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    shell.expect("rc=121.");
    proxy.release_hung();
}

#[cfg(target_os = "linux")]
#[test]
fn processes_that_the_suspend_key_does_not_reach_are_stopped_too() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    for group in ["own", "shared"] {
        let lock = unique("tty");
        let script = "'timeout 1000 sh -c \"echo pid=\\$\\$.; exec sleep 1000\" & read line; \
                      kill $!; wait; echo g\"\"ot-$line'";
        shell.line(&format!(
            "$AZ run --process-group {group} {lock} -c {script}; echo rc=$?."
        ));
        let pid = shell.expect_pid();
        let stopped = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.contains(") T ")
        };
        assert!(!stopped());
        shell.keys(SUSPEND);
        shell.expect("Stopped");
        assert!(stopped(), "{group}");
        shell.line("fg; echo end=$?.");
        shell.expect("$AZ run");
        assert!(eventually(PATIENCE, || !stopped()));
        shell.line("abc");
        shell.expect("got-abc");
        shell.expect("end=0.");
    }
}

#[test]
fn terminal_comes_back_from_a_group_that_was_killed() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let scratch = Scratch::new();
    let lock = unique("tty");
    let script = format!(
        "$AZ run --on-lost=kill --lease 15s --renew-every 1s {lock} bash --norc --noprofile -i
         echo rc=$?.; read line; echo g\"\"ot-$line\n"
    );
    let script = scratch.write("script", &script, 0o644);
    shell.line(&format!(
        "PS1='in''ner '; export PS1; sh {}",
        script.display()
    ));
    shell.expect("inner ");
    // In a group of its own, by the shell within.
    shell.line("sh -c 'echo r\"\"eady; exec sleep 1000'");
    shell.expect("ready");
    service
        .mutex()
        .break_lease(&lock, Some(Duration::ZERO))
        .unwrap();
    shell.expect("rc=121.");
    shell.line("abc");
    shell.expect("got-abc");
}

#[test]
fn lock_is_renewed_while_the_command_is_stopped_if_that_is_asked_for() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let lock = unique("tty");
    shell.line(&format!(
        "$AZ run --on-suspend=ignore-stop {lock} -c {READ}"
    ));
    shell.expect("ready");
    shell.keys(SUSPEND);
    shell.expect("the command is stopped; ");
    assert_eq!(service.state(&lock), LeaseState::Leased);
    // The shell has not come back, and the key reaches the command although it is stopped.
    shell.keys(INTERRUPT);
    shell.expect("\n$ ");
    shell.line("echo rc=$?.");
    shell.expect("rc=130.");
    assert!(service.state(&lock).is_free());
}

#[test]
fn command_in_the_background_that_reads_is_stopped_until_it_may() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let lock = unique("tty");
    shell.line(&format!("$AZ run {lock} -c {READ} &"));
    shell.expect("ready");
    shell.expect("Stopped");
    shell.line("fg; echo end=$?.");
    shell.expect("$AZ run");
    shell.line("abc");
    shell.expect("got-abc");
    shell.expect("end=0.");
}

#[test]
fn script_that_runs_it_is_suspended_with_it() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let scratch = Scratch::new();
    let script = format!("$AZ run {} -c {READ}; echo a\"\"fter\n", unique("tty"));
    let script = scratch.write("script", &script, 0o644);
    shell.line(&format!("sh {}; echo rc=$?.", script.display()));
    shell.expect("ready");
    shell.keys(SUSPEND);
    shell.expect("Stopped");
    shell.line("fg; echo end=$?.");
    shell.line("abc");
    shell.expect("got-abc");
    shell.expect("after");
    shell.expect("end=0.");
}

#[test]
fn pipeline_shares_the_terminal() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let lock = unique("tty");
    // The other command of the pipeline reads the terminal.
    shell.line(&format!(
        "$AZ run {lock} -c 'echo r\"\"eady' | sh -c 'cat; read line </dev/tty; echo g\"\"ot-$line'"
    ));
    shell.expect("ready");
    shell.line("abc");
    shell.expect("got-abc");
    // The interrupt key is for both.
    let script = "'trap \"echo h\"\"eard >/dev/tty; exit 5\" INT; echo r\"\"eady; while :; do sleep 1; done'";
    shell.line(&format!("$AZ run {lock} -c {script} | cat"));
    shell.expect("ready");
    shell.keys(INTERRUPT);
    // Which killed the other command, so that the shell ends the line there.
    let seen = shell.expect("\n$ ");
    shell.line("echo rc=${PIPESTATUS[0]}.");
    shell.expect("rc=5.");
    assert_eq!(seen.matches("heard").count(), 1, "{seen}");
    // So is the suspend key.
    shell.line(&format!(
        "$AZ run {lock} -c {READ} | cat; echo rc=${{PIPESTATUS[0]}}."
    ));
    shell.expect("ready");
    shell.keys(SUSPEND);
    shell.expect("Stopped");
    shell.line("fg; echo end=$?.");
    shell.line("abc");
    shell.expect("got-abc");
    shell.expect("end=0.");
}

#[test]
fn nohup_outlives_its_terminal() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let lock = unique("tty");
    let scratch = Scratch::new();
    let [ready, go, done] = ["ready", "go", "done"].map(|name| scratch.file(name));
    let (r, g, d) = (ready.display(), go.display(), done.display());
    let script = format!("'touch {r}; until [ -e {g} ]; do sleep 0.05; done; touch {d}'");
    shell.line(&format!(
        "nohup $AZ run {lock} -c {script} >/dev/null 2>&1 &"
    ));
    assert!(eventually(PATIENCE, || ready.exists()));
    drop(shell);
    assert_eq!(service.state(&lock), LeaseState::Leased);
    scratch.write("go", "", 0o644);
    assert!(eventually(PATIENCE, || done.exists() && service.state(&lock).is_free()));
}

#[test]
fn terminal_comes_back_from_a_command_that_cannot_be_executed() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let scratch = Scratch::new();
    let odd = scratch.write("odd", "not a program\n", 0o755);
    shell.line(&format!(
        "$AZ run {} {}; echo rc=$?.",
        unique("tty"),
        odd.display()
    ));
    shell.expect("rc=126.");
    shell.line("echo s''till here");
    shell.expect("still here");
}

#[test]
fn waiting_is_one_line_that_is_redrawn_and_ends_at_the_interrupt_key() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let lock = unique("tty");
    let held = service.locker(&lock).lock().unwrap();
    shell.line(&format!("TERM=xterm $AZ run {lock} echo r''an"));
    let seen = shell.expect("Ctrl-C to give up");
    assert!(
        seen.contains(&format!("\r\x1b[Kazmutex: waiting for {lock}  held by ")),
        "{seen:?}"
    );
    shell.expect("[0:01]");
    shell.keys(INTERRUPT);
    let seen = shell.expect("\n$ ");
    shell.line("echo rc=$?.");
    shell.expect("rc=130.");
    assert!(!seen.contains("ran"), "{seen}");
    drop(held);
    assert!(service.state(&lock).is_free());
}

#[test]
fn suspend_key_while_waiting_stops_and_goes_on() {
    let service = Service::emulator();
    let mut shell = Shell::start(&service);
    let lock = unique("tty");
    let held = service.locker(&lock).lock().unwrap();
    shell.line(&format!("$AZ run {lock} echo r''an; echo rc=$?."));
    shell.expect("held by ");
    shell.keys(SUSPEND);
    shell.expect("Stopped");
    drop(held);
    shell.line("fg; echo end=$?.");
    shell.expect("ran");
    shell.expect("end=0.");
}
