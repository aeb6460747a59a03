//! The examples in `--help` and the man pages.

use crate::exit;

/// The examples of a command and its exit codes.
pub(crate) fn with_exit(examples: &str, run: bool) -> String {
    format!("{examples}\n\n{}", exit::help(exit::rows(run)))
}

/// The same for `once`.
pub(crate) fn with_exit_of_once(examples: &str) -> String {
    format!("{examples}\n\n{}", exit::help(exit::rows_of_once()))
}

/// The same for `elect`.
pub(crate) fn with_exit_of_elect(examples: &str) -> String {
    format!("{examples}\n\n{}", exit::help(exit::rows_of_elect()))
}

pub(crate) const MAIN: &str = "\
Examples:
  azmutex run nightly-report -- ./report.sh    run a command, one machine at a time
  azmutex status nightly-report                who holds it?
  azmutex list                                 all locks of the container
  azmutex doctor                               does it work from here?

The account and its credential come from AZURE_STORAGE_CONNECTION_STRING, or from
AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN. With an account
alone, azmutex signs in to Microsoft Entra ID: see --auth. To try azmutex without an account, serve
an emulator: azmutex emulator --help

Most options can also be set as variables, which count if the option is not given: --container as
AZMUTEX_CONTAINER, --wait as AZMUTEX_WAIT. The man pages list all of them.";

pub(crate) const RUN: &str = "\
Examples:
  azmutex run deploy make release              wait for the lock, then run make release
  azmutex run -n deploy -- ./deploy.sh -v      fail with 75 if somebody holds it
  azmutex run -n -E 0 cleanup ./cleanup.sh     from cron on many machines: skip if it runs elsewhere
  azmutex run -w 10m --reason 'release 8' deploy ./deploy.sh
  azmutex run -c backup 'pg_dump app | gzip > app.gz'
  azmutex run --slots 3 deploy ./deploy.sh     three at a time, each with a number of its own
  azmutex run --also db deploy ./migrate.sh    with both locks, or with neither
  azmutex run --dry-run deploy make release    show what would happen

A script that runs itself under the lock, as its first line:
  [ \"${AZMUTEX_NAME-}\" = deploy ] || exec azmutex run deploy -- \"$0\" \"$@\"";

pub(crate) const ELECT: &str = "\
Examples:
  azmutex elect scheduler -- ./scheduler       on one machine at a time, for as long as it runs
  azmutex elect --health-cmd 'curl -fs localhost:8080/healthz' api -- ./api
  azmutex elect --once scheduler -- ./scheduler    for a service manager that starts it again
  azmutex elect --who scheduler                who leads? exit code 1 if nobody does
  azmutex elect --observe --poll 5s scheduler  each change of leader, as a line";

pub(crate) const ONCE: &str = "\
Examples:
  azmutex once migrations/0042 ./migrate.sh    the first one runs it; the others wait, and do nothing
  azmutex once --every 23h -n report ./report  from cron on many machines: one of them, once a day
  azmutex once --forget migrations/0042        it is due again";

pub(crate) const STATUS: &str = "\
Examples:
  azmutex status deploy                        who holds it, since when, what for
  azmutex status deploy backup --json          one object per line
  azmutex status --slots deploy                a semaphore, with each of its permits
  azmutex status --check free deploy && echo nobody deploys
  azmutex status --check mine --lease-id \"$ID\" deploy || exit 1";

pub(crate) const LIST: &str = "\
Examples:
  azmutex list                                 all locks of the container
  azmutex list --prefix prod/ --held           what is going on in production
  azmutex list --json | jq -r 'select(.state == \"leased\").lock'";

pub(crate) const BREAK: &str = "\
Examples:
  azmutex break deploy                         shows the holder, asks for the name, gives it 30 s
  azmutex break deploy --now                   at once: the holder may go on for a while
  azmutex break deploy --confirm deploy        without a terminal
  azmutex break deploy --yes --if-stale 2h     only if it has been held for two hours
  azmutex break --slot 1 deploy                one permit of a semaphore";

pub(crate) const ACQUIRE: &str = "\
Examples:
  ID=$(azmutex acquire deploy -w 5m) || exit   only the lease ID goes to stdout
  azmutex renew deploy --lease-id \"$ID\"        within 60 s, and repeatedly
  azmutex release deploy --lease-id \"$ID\"
  eval \"$(azmutex acquire deploy --format shell)\" && azmutex release deploy

A script that ignores the exit code of renew works on without the lock. See: azmutex run";

pub(crate) const RENEW: &str = "\
Examples:
  azmutex renew deploy --lease-id \"$ID\" || exit 1
  AZMUTEX_LEASE_ID=$ID azmutex renew deploy";

pub(crate) const RELEASE: &str = "\
Examples:
  azmutex release deploy --lease-id \"$ID\"
  AZMUTEX_LEASE_ID=$ID azmutex release deploy";

pub(crate) const HOLD: &str = "\
Examples:
  azmutex hold deploy                          until ^D or ^C
  azmutex hold deploy --for-pid $$ &           until this script ends

In bash, wait for the lock, and be stopped when it is lost:
  coproc azmutex hold deploy --ready --for-pid $$ --on-lost-signal TERM
  read -r line <&\"${COPROC[0]}\" && [ \"$line\" = READY ] || exit
  ...
  exec {COPROC[1]}>&-; wait                    end of stdin: releases the lock

If READY does not come, the lock is not held and the script must not continue. Simpler, and in any
shell: azmutex run";

pub(crate) const DOCTOR: &str = "\
Examples:
  azmutex doctor
  azmutex doctor --read-only --json
  azmutex doctor --setup --auth sas            the commands that make an account and a SAS
  azmutex doctor --emulator                    what a healthy answer looks like";

#[cfg(feature = "emulator")]
pub(crate) const EMULATOR: &str = "\
Examples:
  azmutex emulator --port 10000                prints an export line to paste into other terminals
  azmutex emulator --sas                       the same, with a shared access signature for the key
  azmutex run --emulator deploy make release   its own emulator, for a first try";

pub(crate) const COMPLETIONS: &str = "\
Examples:
  azmutex completions bash > ~/.local/share/bash-completion/completions/azmutex
  azmutex completions zsh > \"${fpath[1]}/_azmutex\"
  azmutex completions fish > ~/.config/fish/completions/azmutex.fish";

pub(crate) const MAN: &str = "\
Examples:
  azmutex man | man -l -
  azmutex man ~/.local/share/man/man1";

pub(crate) const SCHEMA: &str = "\
Examples:
  azmutex schema > azmutex.schema.json
  azmutex schema | jq '.\"$defs\" | keys'       the events, and what they share";
