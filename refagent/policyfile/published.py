# SPDX-License-Identifier: Apache-2.0
"""What is published of a TracingPolicy, as tables: what we read of it, and what we refuse.

Names are those of the custom resource `cilium.io/v1alpha1`, and of some that older versions had.
"""

from __future__ import annotations

from typing import Final

from refagent.policyfile.shape import Shape

API_VERSION: Final = "cilium.io/v1alpha1"
KIND: Final = "TracingPolicy"

TRACING_POLICY: Final = Shape(
    "a TracingPolicy", needs=("apiVersion", "kind", "metadata", "spec"), refuses=("status",)
)
METADATA: Final = Shape(
    "the metadata",
    needs=("name",),
    # What a cluster adds to an object says nothing about calls.
    ignores=(
        *("labels", "annotations", "creationTimestamp", "generation", "managedFields"),
        *("resourceVersion", "selfLink", "uid"),
    ),
    refuses=("namespace", "generateName", "finalizers", "ownerReferences"),
)
SPEC: Final = Shape(
    "a spec",
    reads=("kprobes", "lsmhooks", "options"),
    refuses=(
        *("tracepoints", "uprobes", "usdts", "fentries", "lists", "enforcers", "loader", "parsers"),
        *("podSelector", "containerSelector", "hostSelector", "nodeSelector", "selectorsMacros"),
    ),
)
OPTION: Final = Shape("an option", needs=("name", "value"))
#: The one option that changes what our agent does, and those that are refused.
MODE: Final = "policy-mode"
MODES: Final = {"enforce": False, "monitor": True}
OTHER_OPTIONS: Final = (
    *("disable-kprobe-multi", "disable-uprobe-multi", "override-method", "sleepable-preload-size"),
)

KPROBE: Final = Shape(
    "a kprobe",
    needs=("call",),
    reads=("syscall", "args", "selectors"),
    # What is said of the result counts with `return: true` only.
    ignores=("message", "tags", "returnArg"),
    idle={"return": "false"},
    refuses=("data", "returnArgAction", "ignore"),
)
LSM_HOOK: Final = Shape(
    "an lsmhook", needs=("hook",), reads=("args", "selectors"), ignores=("message", "tags")
)
ARGUMENT: Final = Shape(
    "an argument",
    needs=("index", "type"),
    ignores=("label",),
    idle={"returnCopy": "false", "maxData": "false"},
    refuses=("sizeArgIndex", "resolve", "source", "btfType", "btfTypeModule"),
)
SELECTOR: Final = Shape(
    "a selector",
    reads=("matchArgs", "matchBinaries", "matchPIDs", "matchActions"),
    ignores=("label",),
    refuses=(
        *("matchData", "matchReturnArgs", "matchReturnActions", "matchParentBinaries"),
        *("matchNamespaces", "matchNamespaceChanges", "matchCapabilities"),
        *("matchCapabilityChanges", "matchWorkloads", "macros"),
    ),
)
MATCH_ARGUMENT: Final = Shape("matchArgs", needs=("operator", "values"), reads=("index", "args"))
MATCH_BINARY: Final = Shape(
    "matchBinaries", needs=("operator", "values"), idle={"followChildren": "false"}
)
MATCH_PID: Final = Shape(
    "matchPIDs",
    needs=("operator", "values"),
    idle={"isNamespacePID": "false", "followForks": "false"},
)
#: Operators that are published, each for some of the matches.
OPERATORS: Final = (
    *("In", "NotIn", "Equal", "NotEqual", "Prefix", "NotPrefix", "Postfix", "NotPostfix"),
    *("GreaterThan", "LessThan", "GT", "LT", "Mask", "SPort", "NotSPort", "SPortPriv"),
    *("NotSportPriv", "DPort", "NotDPort", "DPortPriv", "NotDPortPriv", "SAddr", "NotSAddr"),
    *("DAddr", "NotDAddr", "Protocol", "Family", "State", "InMap", "NotInMap"),
    *("CapabilitiesGained", "InRange", "NotInRange", "SubString", "SubStringIgnCase", "CelExpr"),
    *("FileType", "NotFileType"),
)

#: Types of arguments that are paths: what is matched is the whole text, as in a `Policy`.
PATHS: Final = ("path", "file", "filename", "string", "linux_binprm")


def _integers() -> dict[str, tuple[int, int]]:
    table: dict[str, tuple[int, int]] = {}
    for bits, names in {
        8: ("int8", "sint8"),
        16: ("int16", "sint16"),
        32: ("int", "int32", "sint32"),
        64: ("int64", "sint64", "long"),
    }.items():
        table |= dict.fromkeys(names, (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
        table[f"uint{bits}"] = (0, 2**bits - 1)
    return table | dict.fromkeys(("size_t", "ulong", "unsigned long"), (0, 2**64 - 1))


#: Types of arguments that are numbers → the least and the greatest.
NUMBERS: Final = _integers()
#: Those of 64 bits.
WIDE: Final = tuple(name for name, (least, most) in NUMBERS.items() if most - least == 2**64 - 1)
#: Types that an argument may have as long as nothing is asked of it.
OTHER_TYPES: Final = (
    *("char_buf", "char_iovec", "const_buf", "skb", "sock", "sockaddr", "sockaddr_un", "socket"),
    *("fd", "nop", "bpf_attr", "bpf_cmd", "bpf_map", "bpf_prog", "perf_event", "user_namespace"),
    *("capability", "kiocb", "iov_iter", "cred", "load_info", "module"),
    *("kernel_cap_t", "cap_inheritable", "cap_permitted", "cap_effective", "data_loc"),
    *("net_device", "dentry"),
)
#: Types that only tracepoints have.
TRACEPOINT_TYPES: Final = ("auto", "syscall64")

ACTION: Final = Shape(
    "an action",
    needs=("action",),
    reads=("argError", "argSig", "imaHash"),
    idle=dict.fromkeys(("kernelStackTrace", "userStackTrace"), "false"),
    refuses=(
        *("argUrl", "argFqdn", "argSock", "argIndex", "argValue", "argRegs", "argNewSymbol"),
        *("argNewAddr", "argNewOffset", "argFd", "argName", "rateLimit", "rateLimitScope"),
    ),
)
OTHER_ACTIONS: Final = (
    *("FollowFD", "UnfollowFD", "CopyFD", "GetUrl", "DnsLookup", "TrackSock", "UntrackSock"),
    *("NotifyEnforcer", "CleanupEnforcerNotification", "NotifyKiller", "Set"),
)
