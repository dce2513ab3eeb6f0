"""What the free text that names a DICOM series says of the scan, as entries of a fixed list: the
text itself, which may hold the patient's name, is never kept."""

import re
import unicodedata
from collections.abc import Iterable, Sequence


def words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


def _set(text: str) -> set[str]:
    return {*words(text)}


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

AGENTS = _set("""
    gd gad gado dtpa km kontrastmittel kontrastmittels mdc civ ce dce c+ enhanced enhancement
    inj injection injected injecte injectee injektion iniezione iniettato inyeccion inyectado
    injecao bolus dotarem gadovist gadavist magnevist multihance prohance omniscan optimark
    vueway elucirem clariscan dotagraf artirem primovist eovist vasovist ablavar magnegita
    cyclolux feraheme rienso pixxoscan
""")
"""Words for a contrast agent in English, German, French, Spanish, Italian and Portuguese, and brand
names; also what begins with "gado"."""
PERHAPS_AGENTS = _set("contrast contraste contrasto contrasted kontrast enhancing")
"""Words that mean an agent behind one of `WITH`, and elsewhere perhaps ("high contrast")."""
SHORT_AGENTS = _set("pc pdc mc cm ca")
"""Words that mean an agent only behind one of `WITH` or `WITHOUT` ("avec PC")."""
WITH = _set("""
    with w/ w post after mit m nach n avec apres con c/ despues tras dopo com pos apos depois
    met na po c + plus
""")
WITHOUT = _set("""
    without w/o w/out wo no non not none un pre before minus ohne o vor nicht kein keine sans
    pas avant sin s/ s antes senza prima sem zonder voor bez
""")
BOTH = _set("w/wo wwo +/-")
FILLERS = _set("""
    iv i v the any of and or et ou und oder y e ed de d di del della du da do l la le el dem / &
    , produit medio medios mezzo mezzi medium media agent agente material dye intravenous
    intraveneuse endovenoso administration administracion somministrazione gabe single double
    dose t
""")
"""What may stand between an agent's word and the word that affirms or denies it."""
PLAIN = _set("""
    nativ native nativo nativa plain unenhanced nonenhanced noncontrast precontrast blanco basal
    basale c-
""")
"""Words that by themselves say that there is no agent."""
NOT_OF_AGENTS = _set("""
    op operative operativ operatif operatoire operatorio surgery surgical surg rt radiation
    radiotherapy treatment therapy chemo biopsy proc processed processing trauma traumatic
    contouring fossa ictal partum stroke resection implant mortem exercise training intervention
    scan month months week weeks day days tx
""")
"""What "post" is about where one of these follows."""
NOTHING = _set("""
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
_ONE_OF = {name: re.compile(pattern) for name, pattern in (("sequence", _SEQUENCE), ("how", _HOW))}
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
_KNOWN = AGENTS | PERHAPS_AGENTS | WITH | WITHOUT | PLAIN | FILLERS | NOT_OF_AGENTS


def described(texts: Iterable[str]) -> list[str]:
    """The entries of `WORDS` that apply to any of the texts, and what they say of a contrast agent.

    Returns:
        Keys of `WORDS`, "contrast_agent" and "no_contrast_agent" as far as one of the texts says
        so, and "perhaps_contrast_agent" where none says more than that there may be one.
    """
    plain = [_plain(text) for text in texts]
    patterns = {name: re.compile(rf"(?<![a-z0-9])(?:{one})") for name, one in WORDS.items()}
    found = [name for name, word in patterns.items() if any(map(word.search, plain))]
    said = {agent_in(text) for text in plain}
    found += ["contrast_agent"] * ("with" in said) + ["no_contrast_agent"] * ("without" in said)
    return found + ["perhaps_contrast_agent"] * ("perhaps" in said and "with" not in said)


def agent_in(text: str) -> str | None:
    """Tell whether a text says that a scan was taken "with", "without" or "perhaps" with contrast
    agent; None where it says nothing.

    A word that denies counts only directly before the agent's word: "no fs" denies no agent. Where
    a text says both, it is "perhaps".
    """
    tokens = _tokens(_plain(text))
    said = [_said(tokens, at) for at in range(len(tokens))]
    clear = {one for one in said if one in ("with", "without", "both")}
    if len(clear) == 1 and "both" not in clear:
        return clear.pop()
    return "perhaps" if clear or "perhaps" in said or _dangles(tokens) else None


def denies_agent(text: str) -> bool:
    """Tell whether the value of an attribute that names an agent says that there was none."""
    tokens = _tokens(_plain(text))
    said = agent_in(text)
    if said is not None:
        return said == "without"
    plain = [token for token in tokens if token.isalnum()]
    nothing = all(re.fullmatch(r"0+(ml|cc|mg|mmol)?|ml|cc|mg|mmol", word) for word in plain)
    return nothing or plain[0] in WITHOUT | PLAIN | NOTHING


def _plain(text: str) -> str:
    """In lower case, without accents and without `CONVERTED`."""
    letters = unicodedata.normalize("NFKD", text.lower().replace("_", " ").replace(CONVERTED, ""))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    for match in _TOKEN.finditer(text):
        token = re.sub(r"\s", "", match[0])
        found += {"-/+": ["+/-"], "±": ["+/-"]}.get(token) or _split(token)
    merged: list[str] = []
    for token in found:
        pair = (merged[-1], token) if merged else ("", token)
        if pair in MERGED:
            merged[-1] = MERGED[pair]
        else:
            merged.append(token)
    return merged


def _split(token: str) -> list[str]:
    """The words of which a word is made, such as "t1postgd"; itself where it is none of these."""
    if token in _KNOWN:
        return [token]
    if leading := re.fullmatch(rf"(ce|gd|km)((?:{_SEQUENCE})+)", token):
        return [leading[1], leading[2]]
    joined = _JOINED.fullmatch(token)
    if joined is None:
        return [token]
    sequence, how, agent, tail = joined.groups()
    hows = _ONE_OF["how"].findall(how)
    if agent in ("c", "ce") and not (
        sequence and not hows or hows and hows[-1] in ("post", "pre", "non")
    ):
        return [token]  # "since" is no word for an agent
    if not agent and not (sequence and hows and hows[-1] in ("post", "pre")):
        return [token]
    first = _ONE_OF["sequence"].findall(sequence)
    if agent == "ce" and first and not _T1.fullmatch(first[-1]):
        return [token]  # nor is "trace"
    return [part for part in (*first, *hows, agent, tail) if part]


def _is_agent(token: str) -> bool:
    return token in AGENTS or token.startswith("gado")


def _said(tokens: Sequence[str], at: int) -> str | None:
    """What one word says of an agent: "with", "without", "both", "perhaps" or None."""
    token = tokens[at]
    following = tokens[at + 1] if at + 1 < len(tokens) else ""
    if token in PLAIN:
        return "without"
    lone_c = token == "c" and not _names_agent(following) and following != "spine"
    if lone_c and at and _T1.fullmatch(tokens[at - 1]):
        return "perhaps"  # "T1 C"
    if not (_names_agent(token) or token in SHORT_AGENTS):
        return None
    polarity = _polarity(tokens[:at])
    if following == "-":
        return "both"  # "KM-"
    if polarity is not None:
        return polarity
    if token not in PERHAPS_AGENTS:
        return "with" if _is_agent(token) else None
    told = _is_agent(following) or following in ("agent", "medium", "media")
    return "with" if told else "perhaps"


def _names_agent(token: str) -> bool:
    return _is_agent(token) or token in PERHAPS_AGENTS


def _polarity(before: Sequence[str]) -> str | None:
    """What the words directly before an agent's word say of it."""
    found = set()
    for token in reversed(before):
        if token in BOTH:
            found |= {"with", "without"}
        elif token in WITHOUT:
            found.add("without")
        elif token in WITH:
            found.add("with")
        elif not (token in FILLERS or _names_agent(token)):
            break
    return "both" if len(found) > 1 else found.pop() if found else None


def _dangles(tokens: Sequence[str]) -> bool:
    """Whether words for with, or with and without, stand alone: "T1 POST", "BRAIN W/WO", "T1 +"."""
    for at, token in enumerate(tokens):
        following = next((other for other in tokens[at + 1 :] if other not in FILLERS), "")
        if token in ("post", "w/wo", "wwo") and following not in NOT_OF_AGENTS:
            return True
        if token in ("with", "w/", "mit", "avec", "con", "+") and not following:
            return True
    return False
