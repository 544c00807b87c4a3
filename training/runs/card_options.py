"""Options for the model card: license and language. They are not in the recipe because they do not affect training."""

from __future__ import annotations

from dataclasses import dataclass

from dataset_builder import SAMPLES, UserError
from model_card.licences import UNKNOWN, check_language, check_licence
from training.recipe.recipe import Recipe

SAMPLE_LICENCE, SAMPLE_LANGUAGE = "apache-2.0", "en"
# Under the licence of the sample's stories and of our code, too.
_APACHE_ENCODERS = ("cnn", "rnn", "minilm")


@dataclass(frozen=True)
class CardOptions:
    """Flags of `train` that are about the card.

    Attributes:
        license: id of the licence under which the stories may be passed on; None: the card quotes none of them.
        model_license: id of the model's own licence; None: see `stated_for`.
        language: codes of the languages of the stories; None: see `stated_for`.
    """

    license: str | None = None
    model_license: str | None = None
    language: tuple[str, ...] | None = None

    def check(self) -> None:
        """Checks that the Hub accepts the values.

        Raises:
            UserError: naming the flag.
        """
        for flag, licence in (("--license", self.license), ("--model_license", self.model_license)):
            if licence is not None:
                check_licence(flag, licence)
        if self.license == UNKNOWN:
            raise UserError("--license unknown permits nothing: name the licence of the stories, or leave it out")
        for code in self.language or ():
            check_language("--language", code)

    def stated_for(self, recipe: Recipe) -> CardOptions:
        """These options, with defaults for the bundled stories and for Apache-2.0 encoders."""
        sample = all(source in SAMPLES for source in recipe.sources)
        free = sample and recipe.encoder in _APACHE_ENCODERS
        return CardOptions(
            license=self.license or (SAMPLE_LICENCE if sample else None),
            model_license=self.model_license or (SAMPLE_LICENCE if free else UNKNOWN),
            language=self.language or ((SAMPLE_LANGUAGE,) if sample else None),
        )
