//! Keeps what this process has in memory, keys and passwords among it, from other processes of the
//! same user and out of core files.
//!
//! Whoever may do everything (root) still may. Programs that this one starts are not touched by the
//! first, and may undo the second.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// Takes effect at once and for good. What the system refuses is done without: it would refuse a
/// sandboxed process, which is none the worse for it.
pub(crate) fn raise() {
    // PR_SET_DUMPABLE (prctl(2)): no ptrace(2) by the same user, no core file.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let limit = Rlimit {
        current: Some(0),
        ..getrlimit(Resource::Core)
    };
    let _ = setrlimit(Resource::Core, limit);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::dumpable_behavior;

    #[test]
    fn nobody_else_reads_this_process() {
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::Dumpable);
        raise();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        // Other tests of this process may look at it as before.
        set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
    }
}
