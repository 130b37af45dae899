"""The two parts of COCO's caption evaluation that need Java: the PTB tokenizer and METEOR.

Both are jars of pycocoevalcap. METEOR fails under a locale that writes decimal commas, and Java
splits letters under one without UTF-8. So language and encoding are always set here.
"""

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from shutil import which

from minicap.utils.errors import UserError

METEOR_SETTINGS = "-Duser.language=en -Duser.country=US -Dfile.encoding=UTF-8"


def need_java(option: str) -> None:
    """Raise UserError, naming the option that needs it, if there is no `java` to run."""
    if not which("java"):
        raise UserError(
            f"{option} needs Java, and `java` is not on the PATH: install it or leave {option} out"
        )


def ptb_tokenise(captions: Sequence[str]) -> list[list[str]]:
    """Split captions into words with Stanford's PTBTokenizer, as COCO's evaluation does.

    The options and the punctuation that is left out are those of Chen et al. 2015, "Microsoft COCO
    Captions: Data Collection and Evaluation Server".

    Returns:
        The words of each caption, in lower case and without punctuation.

    Raises:
        UserError: there is no Java, or it fails.
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    need_java("--tokenizer ptb")
    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    process = subprocess.run(
        [*command, "-preserveLines", "-lowerCase", "-encoding", "UTF-8"],
        # Java splits lines at more characters than "\n"; each would shift the captions after it.
        input="".join(" ".join(caption.split()) + "\n" for caption in captions).encode(
            "utf-8", "replace"
        ),
        capture_output=True,
    )
    lines = process.stdout.decode(errors="replace").split("\n")[:-1]
    if process.returncode or len(lines) != len(captions):
        reason = process.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise UserError(
            f"--tokenizer ptb: Java's PTBTokenizer failed ({reason or 'lines are missing'})"
        )
    punctuation = set(ptbtokenizer.PUNCTUATIONS)
    return [[word for word in line.split() if word not in punctuation] for line in lines]


class Meteor:
    """METEOR 1.5 (Denkowski and Lavie 2014), computed by a Java program that keeps running.

    It takes about ten seconds to start and 2 GB of memory.

    Raises:
        UserError: there is no Java.
    """

    def __init__(self) -> None:
        need_java("--meteor")
        from pycocoevalcap.meteor.meteor import Meteor as Program

        before = os.environ.get("JAVA_TOOL_OPTIONS")
        os.environ["JAVA_TOOL_OPTIONS"] = f"{before or ''} {METEOR_SETTINGS}".strip()
        try:
            self.program = Program()  # it has no arguments for settings, only the environment
        finally:
            if before is None:
                del os.environ["JAVA_TOOL_OPTIONS"]
            else:
                os.environ["JAVA_TOOL_OPTIONS"] = before

    def __call__(self, references: dict, candidates: dict) -> tuple[float, list[float]]:
        """Compute METEOR, from 0 to 1.

        Args:
            references: image -> its tokenised references, as pycocoevalcap takes them.
            candidates: image -> a list with one tokenised caption.

        Returns:
            The score over all images, and the score of each.

        Raises:
            UserError: the Java program fails.
        """
        try:
            return self.program.compute_score(references, candidates)
        except (ValueError, OSError) as error:
            reason = self.program.meteor_p.stderr.read().decode(errors="replace").strip()
            raise UserError(f"--meteor: Java failed ({reason.rpartition(chr(10))[2]})") from error
        finally:
            # After a failure the program's own __del__ would wait for this lock forever, and
            # complain about a pipe that it cannot flush.
            if self.program.lock.locked():
                self.program.lock.release()
                with suppress(OSError):
                    self.program.meteor_p.stdin.close()
