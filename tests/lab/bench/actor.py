"""A worker that computes nothing: it answers as its role should, given as JSON in its first argument.

{role: {"seconds": of a call, "own": seconds of processors, "does": what goes wrong, "losses": ...}}
"""

import json
import sys
import time

LOSSES = [2.5 - 0.01 * t for t in range(20)]


def answers(part: dict, message: dict, role: str) -> dict:
    does = part.get("does", "")
    if message["do"] == "prepare":
        if does == "refuses":
            return {"error": "ModuleNotFoundError: No module named 'somewhere'"}
        if does == "hangs":
            time.sleep(3600)
        if does == "dies":
            print("Killed: out of memory", file=sys.stderr)
            sys.exit(9)
        if does == "babbles":
            print("not JSON", flush=True)
        answer = {"losses": part.get("losses", LOSSES), "allowed": [1e-3] * 20 if message["bounded"] else None}
        return {**answer, "isa": "v4", "threads": 2} if role.startswith("bnengine") else answer
    if does == "dies late":
        sys.exit(3)
    return {"seconds": part.get("seconds", 1e-3), "own": part.get("own", 0.0), "switches": 0}


def main(parts: dict, role: str) -> None:
    for line in sys.stdin:
        print(json.dumps(answers(parts.get(role, {}), json.loads(line), role)), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2])
