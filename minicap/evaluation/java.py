"""What needs Java: the tokeniser of the Penn Treebank, and METEOR, both from pycocoevalcap's jars.

Under a locale that writes decimal commas, METEOR dies of its own numbers; under one without UTF-8,
Java takes letters apart. So both are told their language and encoding, whatever the machine's are.
"""

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from shutil import which

from minicap.utils.errors import UserError

METEOR_SETTINGS = "-Duser.language=en -Duser.country=US -Dfile.encoding=UTF-8"


def need_java(what: str) -> None:
    """UserError, naming `what` it is for, if there is no `java` to run."""
    if not which("java"):
        raise UserError(
            f"{what} needs Java, and there is no `java` here: install it, or do without"
        )


def ptb_tokenise(captions: Sequence[str]) -> list[list[str]]:
    """The words of each caption by Stanford's PTBTokenizer, in lower case and without punctuation,
    as the COCO caption evaluation (Chen et al. 2015) has them.

    UserError: no Java, or it fails.
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    need_java("--tokenizer ptb")
    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    done = subprocess.run(
        [*command, "-preserveLines", "-lowerCase", "-encoding", "UTF-8"],
        # Whatever else Java takes for the end of a line would shift all captions behind it.
        input="".join(" ".join(caption.split()) + "\n" for caption in captions).encode(
            "utf-8", "replace"
        ),
        capture_output=True,
    )
    lines = done.stdout.decode(errors="replace").split("\n")[:-1]
    if done.returncode or len(lines) != len(captions):
        reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise UserError(
            f"--tokenizer ptb: Java's PTBTokenizer fails ({reason or 'lines are lost'})"
        )
    unwanted = set(ptbtokenizer.PUNCTUATIONS)
    return [[word for word in line.split() if word not in unwanted] for line in lines]


class Meteor:
    """METEOR 1.5 (Denkowski and Lavie 2014): a Java program that stays running.

    It takes about ten seconds to start and two gigabytes of memory. UserError: no Java.
    """

    def __init__(self) -> None:
        need_java("--meteor")
        from pycocoevalcap.meteor.meteor import Meteor as Program

        before = os.environ.get("JAVA_TOOL_OPTIONS")
        os.environ["JAVA_TOOL_OPTIONS"] = f"{before or ''} {METEOR_SETTINGS}".strip()
        try:
            self.program = Program()  # takes no settings, so they go through the environment
        finally:
            if before is None:
                del os.environ["JAVA_TOOL_OPTIONS"]
            else:
                os.environ["JAVA_TOOL_OPTIONS"] = before

    def __call__(self, references: dict, candidates: dict) -> tuple[float, list[float]]:
        """METEOR over all pictures and of each; arguments as pycocoevalcap's classes take them."""
        try:
            return self.program.compute_score(references, candidates)
        except (ValueError, OSError) as error:
            reason = self.program.meteor_p.stderr.read().decode(errors="replace").strip()
            raise UserError(f"--meteor: Java fails ({reason.rpartition(chr(10))[2]})") from error
        finally:
            if self.program.lock.locked():  # its own farewell would wait for that for ever,
                self.program.lock.release()
                with suppress(OSError):  # and complain of a pipe that cannot be emptied
                    self.program.meteor_p.stdin.close()
