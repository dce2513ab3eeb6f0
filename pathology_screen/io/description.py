"""What the free text that names a DICOM series says of the scan, as entries of a fixed list: the
text itself, which may hold the patient's name, is never kept."""

import re
import unicodedata
from collections.abc import Iterable, Sequence


def words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


WORDS = {
    "t1": r"[a-z]{0,3}t1|mp-?2?rage|bravo|f?spgr|tfl3d",
    "t2": r"[a-z]{0,3}t2",
    "flair": r"\w*flair|dark.?fluid|tirm",
    "stir": r"stir",
    "proton_density": r"pd(w|\b)|proton",
    "diffusion": r"dwi|dti|diff|adc|trace",
    "susceptibility": r"swi|swan|venobold|hemo",
    "angiography": r"tof|mra\b|mrv\b|angio",
    "perfusion": r"perf|asl\b|dsc|dce|cbf|cbv",
    "functional": r"bold|fmri|ep2d|resting",
    "localizer": r"loc\b|localizer|localiser|scout|survey",
    "mp2rage": r"mp-?2rage",
    "uniform": r"uni(\b|images?\b|den)",
    "denoised": r"den\b|uni-?den|denoised",
}
"""Entries, and what begins a word of the text where they apply (\\b: and ends it)."""

_WORDS_OF = {
    # a contrast agent in English, German, French, Spanish, Italian and Portuguese, and brand names;
    # also what begins with "gado"
    "agent": """
    gd gad gado dtpa ce dce c+ km kontrastmittel kontrastmittels mdc civ enhanced enhancement inj
    injection injected injecte injectee injektion iniezione iniettato inyeccion inyectado injecao
    bolus dotarem gadovist gadavist magnevist multihance prohance omniscan optimark vueway elucirem
    clariscan dotagraf artirem primovist eovist vasovist ablavar magnegita cyclolux feraheme rienso
    pixxoscan
    """,
    # an agent behind "with", and elsewhere perhaps ("high contrast")
    "perhaps": "contrast contraste contrasto contrasted kontrast enhancing",
    # an agent only behind "with" or "without" ("avec PC")
    "short": "pc pdc mc cm ca",
    "with": """
    with w/ w post after mit m nach n avec apres con c/ despues tras dopo com pos apos depois met na
    po c + plus
    """,
    "without": """
    without w/o w/out wo no non not none un pre before minus ohne o vor nicht kein keine sans pas
    avant sin s/ s antes senza prima sem zonder voor bez
    """,
    "both": "w/wo wwo +/-",
    # what may stand between an agent's word and the word that affirms or denies it
    "filler": """
    iv i v the any of and or et ou und oder y e ed de d di del della du da do l la le el dem / & ,
    produit medio medios mezzo mezzi medium media agent agente material dye intravenous intraveneuse
    endovenoso administration administracion somministrazione gabe single double dose t
    """,
    # by themselves say that there is no agent
    "plain": """
    nativ native nativo nativa plain unenhanced nonenhanced noncontrast precontrast blanco basal
    basale c-
    """,
    # what "post" is about where one of these follows
    "other": """
    op operative operativ operatif operatoire operatorio surgery surgical surg rt radiation
    radiotherapy treatment therapy chemo biopsy proc processed processing trauma traumatic
    contouring fossa ictal partum stroke resection implant mortem exercise training intervention
    scan month months week weeks day days tx
    """,
}
KIND = {word: kind for kind, text in _WORDS_OF.items() for word in words(text)}
NOTHING = words("""
    nil null nan na n false nein nee ninguno ninguna nessuno nessuna aucun aucune nenhum keines
    keins negative nothing unused
""")
"""What further begins the value of an attribute that names no agent."""
CONVERTED = "(enhanced conversion)"
"""What highdicom appends where it makes an enhanced object: the format is meant, not an agent."""

_SEQUENCE = (
    "t1wi?|t1|mprage|mpr|bravo|f?spgr|tfe|ffe|tse|fse|gre|vibe|flash|thrive|lava|cube|space|se|fs"
    "|ax|sag|cor|tra|[23]d"
)
_HOW = (
    "without|with|wo|w|post|pre|after|before|non|no|un|ohne|mit|nach|vor|o|m|n|sans|avec|con|sin"
    "|senza"
)
_AGENT = r"gado[a-z]*|gad|gd|km|mdc|contrast[eo]?|kontrast(?:mittel)?|enhanced|inj|ce|c"
_JOINED = re.compile(rf"((?:{_SEQUENCE})*)((?:{_HOW})*)((?:{_AGENT})?)((?:\d|{_SEQUENCE})*)")
_TOKEN = re.compile(
    r"(?<![a-z0-9])(?:w ?/ ?wo\b|w ?/ ?out\b|w ?/ ?o\b|[wcs]/)|\+ ?/ ?-|- ?/ ?\+|±"
    r"|[a-z0-9]+|(?<=[a-z0-9])-(?=\s|$)|[+/&,]"
)
_T1 = re.compile(r"t1(wi?)?|mprage|bravo|f?spgr")
MERGED = {
    **{("c", "+"): "c+", ("+", "c"): "c+", ("c", "-"): "c-", ("c/", "c"): "c+", ("s/", "c"): "c-"},
    **{("c/", "g"): "gd", ("s/", "g"): "c-", ("w", "wo"): "w/wo", ("+/-", "c"): "w/wo"},
}
"""Tokens that are one together."""


def described(texts: Iterable[str]) -> list[str]:
    """The entries of `WORDS` that apply to any of the texts; then "contrast_agent" and
    "no_contrast_agent" as far as one of them says so, and "perhaps_contrast_agent" where none says
    more than that there may be one."""
    plain = [_plain(text) for text in texts]
    found = [
        name
        for name, word in WORDS.items()
        if any(re.search(rf"(?<![a-z0-9])(?:{word})", text) for text in plain)
    ]
    said = {agent_in(text) for text in plain}
    found += ["contrast_agent"] * ("with" in said) + ["no_contrast_agent"] * ("without" in said)
    return found + ["perhaps_contrast_agent"] * ("perhaps" in said and "with" not in said)


def agent_in(text: str) -> str | None:
    """Tell whether a text says that a scan was taken "with", "without" or "perhaps" with contrast
    agent ("perhaps" also where it says both); None where it says nothing.

    A word that denies counts only directly before the agent's word: "no fs" denies no agent.
    """
    tokens = _tokens(_plain(text))
    said = {_said(tokens, at) for at in range(len(tokens))}
    clear = said & {"with", "without", "both"}
    if clear in ({"with"}, {"without"}):
        return clear.pop()
    return "perhaps" if clear or "perhaps" in said or _dangles(tokens) else None


def denies_agent(text: str) -> bool:
    """Tell whether the value of an attribute that names an agent says that there was none."""
    said = agent_in(text)
    if said is not None:
        return said == "without"
    plain = [token for token in _tokens(_plain(text)) if token.isalnum()]
    nothing = all(re.fullmatch(r"0+(ml|cc|mg|mmol)?|ml|cc|mg|mmol", word) for word in plain)
    return nothing or plain[0] in NOTHING or _kind(plain[0]) in ("without", "plain")


def _plain(text: str) -> str:
    """In lower case, without accents and without `CONVERTED`."""
    letters = unicodedata.normalize("NFKD", text.lower().replace("_", " ").replace(CONVERTED, ""))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _tokens(text: str) -> list[str]:
    merged: list[str] = []
    for match in _TOKEN.finditer(text):
        found = re.sub(r"\s", "", match[0])
        for token in ["+/-"] if found in ("-/+", "±") else _split(found):
            pair = (merged[-1] if merged else "", token)
            if pair in MERGED:
                merged[-1] = MERGED[pair]
            else:
                merged.append(token)
    return merged


def _split(token: str) -> list[str]:
    """The words of which a word is made, such as "t1postgd"; itself where it is none of these."""
    if token in KIND:
        return [token]
    if leading := re.fullmatch(rf"(ce|gd|km)((?:{_SEQUENCE})+)", token):
        return [leading[1], leading[2]]
    joined = _JOINED.fullmatch(token)
    if joined is None:
        return [token]
    sequences, hows = re.findall(_SEQUENCE, joined[1]), re.findall(_HOW, joined[2])
    agent, last = joined[3], hows[-1] if hows else ""
    means_agent = last in ("post", "pre", "non") if hows else bool(sequences)
    if agent in ("c", "ce") and not means_agent:
        return [token]  # "since" is no word for an agent
    if not agent and not (sequences and last in ("post", "pre")):
        return [token]
    if agent == "ce" and sequences and not _T1.fullmatch(sequences[-1]):
        return [token]  # nor is "trace"
    return [part for part in (*sequences, *hows, agent, joined[4]) if part]


def _kind(token: str) -> str:
    return "agent" if token.startswith("gado") else KIND.get(token, "")


def _said(tokens: Sequence[str], at: int) -> str | None:
    """What one word says of an agent: "with", "without", "both", "perhaps" or None."""
    token, kind = tokens[at], _kind(tokens[at])
    following = tokens[at + 1] if at + 1 < len(tokens) else ""
    if kind == "plain":
        return "without"
    if token == "c" and at and _T1.fullmatch(tokens[at - 1]):  # "T1 C"
        names_more = following == "spine" or _kind(following) in ("agent", "perhaps")
        return None if names_more else "perhaps"
    if kind not in ("agent", "perhaps", "short"):
        return None
    if following == "-":
        return "both"  # "KM-"
    polarity = _polarity(tokens[:at])
    if polarity is None and kind == "perhaps":
        told = _kind(following) == "agent" or following in ("agent", "medium", "media")
        return "with" if told else "perhaps"
    return polarity or ("with" if kind == "agent" else None)


def _polarity(before: Sequence[str]) -> str | None:
    """What the words directly before an agent's word say of it."""
    found = set()
    for kind in map(_kind, reversed(before)):
        if kind in ("with", "without", "both"):
            found.add(kind)
        elif kind not in ("filler", "agent", "perhaps"):
            break
    return "both" if len(found) > 1 else found.pop() if found else None


def _dangles(tokens: Sequence[str]) -> bool:
    """Whether words for with, or with and without, stand alone: "T1 POST", "BRAIN W/WO", "T1 +"."""
    for at, token in enumerate(tokens):
        following = next((other for other in tokens[at + 1 :] if _kind(other) != "filler"), "")
        if token in ("post", "w/wo", "wwo") and _kind(following) != "other":
            return True
        if token in ("with", "w/", "mit", "avec", "con", "+") and not following:
            return True
    return False
