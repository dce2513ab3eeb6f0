"""Descriptions of series as people write them: whether they mean a scan after contrast agent."""

import pytest

from pathology_screen.io.description import agent_in, denies_agent, described

ENHANCED = """
AX T1 POST GAD NO FS | T1 MPRAGE GAD PRE-OP NAVIGATION | AX T1 POST GAD | T1+C | AX T1 +C
T1 + C FS | T1C+ | T1 C+ | T1postGd | POSTGAD | AX POSTGAD T1 | T1 POST-CONTRAST
T1 post contrast | T1_POST_CONTRAST_3D | T1 ENHANCED | T1 W/ GD | T1 w/contrast
SAG T1 WITH CONTRAST | AX T1 W GAD | t1_mprage_sag_KM | t1_se_tra_KM | T1 mit KM | T1 nach KM-Gabe
t1_mprage_mKM | T1 n. KM | T1 tra nach Kontrastmittel | T1 mit Kontrast | T1 GADO | T1 EG 3D GADO
T1 apres injection | T1 après injection de gadolinium | T1 injecté | T1 avec gado
T1 avec produit de contraste | AX T1 avec PC | T1 con contraste | T1 con CIV
T1 3D post contraste | T1 con gadolinio | T1 c/ contraste | T1 C/C | T1 con mdc | T1 dopo mdc
MPRAGE MDC | T1 post mdc | T1 con mezzo di contrasto | T1 dopo somministrazione di mdc
T1 pós-contraste | T1 com contraste | T1 DOTAREM | t1 Gadovist 7ml | T1 post Magnevist
MPRAGE MULTIHANCE | PROHANCE T1 | T1 CE | t1ce | CE-T1 | cet1w | 3D T1 TFE GD | T1GD
T1 tra non FS GD | T1 DCE | contrast enhanced T1 | T1 AFTER CONTRAST | T1 SE GD COR | AX T1 FS+GD
BRAVO +GAD | T1_Gd_MPRAGE | Ax T1 Gadolinium without fat sat | T1 sans FS avec gado
T1 ohne FS mit KM | T1 senza FS con mdc | NAV T1 GD no head frame | T1 INJECTION
T1 vibe post inj | T1postcontrast | T1 KM+ | T1 mprage 1mm pre-surgical planning GAD
T1 PRE-OP WITH CONTRAST | T1 CANARY post gd (enhanced conversion)
"""
PLAIN = """
T1 mprage pre gd | T1 pre Gd | T1 without contrast | t1_mprage_nativ | T1 ohne KM | t1_tra_oKM
T1 o. KM | T1 vor KM | T1 W/O GD | AX T1 W/O CONTRAST | AX T1 WO CONTRAST | T1 NON CONTRAST
T1 non-contrast | T1 NONCONTRAST | T1 PRECONTRAST | T1 pre-contrast | T1 PREGAD | T1 unenhanced
T1 non enhanced | T1 plain | T1 sans gado | T1 sans injection | T1 sans produit de contraste
T1 avant injection | T1 sans IV contraste | T1 sin contraste | T1 sin CIV | T1 s/ contraste
T1 S/C | T1 antes de contraste | T1 senza mdc | T1 basale | T1 prima di mdc
T1 senza mezzo di contrasto | T1 sem contraste | T1 zonder contrast | T1 C- | T1 no gad
NO CONTRAST T1 | T1 without iv contrast | T1 without any contrast agent | T1 pas de contraste
T1 pas d'injection | MPRAGE without gadolinium | T1 sans PC | T1 before contrast | T1W/O GD
"""
AMBIGUOUS = """
BRAIN W/WO CONTRAST | BRAIN W WO CONTRAST | MRI brain w/ & w/o contrast | T1 with and without gd
T1 mit/ohne KM | T1 ohne und mit KM | T1 pre and post gd | T1 pre/post contrast
T1 avec et sans gado | T1 con y sin contraste | con e senza mdc | T1 +/- GD | T1 ± C | T1 post
AX T1 POST | T1post | T1 contrast | T1 nativ + KM | unenhanced, post gd | T1C | T1 C | T1 +
T1 KM-
"""
SILENT = """
t1_mprage_sag_p2_iso | Ax T1 FLAIR | 3D T1 TFE | T1 SE TRA | SAG T1 | T1 posterior fossa
CANARY^PATIENT | MPRAGE NO FS | T1 non FS | T1 PRE-OP | T1 post op | T1 POST-SURGERY | T1 POST RT
ep2d_diff_3scan_trace_ADC | T1 since 2020 | T1W 3D SPACE | T1 C SPINE | WIP sT1W_3D_TFE
AX T1 W/O FS | T1 T2 | Cranio encefalico T1 | Schaedel nativ2 T1 | t1_fl2d_tra | 3-plane Localizer
T1 MPR ND | T1 SE cor | Axiale T1 | T1 W | eTHRIVE T1 | sag t1 space iso | T1 (enhanced conversion)
"""


def each(text):
    return [one.strip() for line in text.strip().splitlines() for one in line.split("|")]


SAID = {"with": ENHANCED, "without": PLAIN, "perhaps": AMBIGUOUS, None: SILENT}


@pytest.mark.parametrize("said", SAID)
def test_what_a_text_says_of_an_agent(said):
    assert {text: agent_in(text) for text in each(SAID[said])} == dict.fromkeys(
        each(SAID[said]), said
    )


NO_AGENT = """
- | -- | NON | NIL | NO | none | None given | OHNE | NOT ADMINISTERED | NOT GIVEN | N/A | 0
ohne KM | SANS | sin contraste | senza mdc | NO CONTRAST | 0.0 ml | Keine | aucun | nessuno | NULL
.
"""
SOME_AGENT = """
Gadovist | GD | NON-IONIC GADOLINIUM | CANARY | Dotarem 15 ml | IV | yes | 0.1 mmol/kg Gadavist | KM
7 ml
"""


def test_agents_that_an_attribute_names():
    assert [text for text in each(NO_AGENT) + [""] if not denies_agent(text)] == []
    assert [text for text in each(SOME_AGENT) if denies_agent(text)] == []


@pytest.mark.parametrize(
    "texts, expected",
    [
        (["AX T1 POST GAD", "BRAIN W/WO CONTRAST"], ["t1", "contrast_agent"]),
        (["T1 pre gd", "W/WO CONTRAST"], ["t1", "no_contrast_agent", "perhaps_contrast_agent"]),
        (["T1 pre gd", "T1 gd"], ["t1", "contrast_agent", "no_contrast_agent"]),
        (["T1 sag", "T1 + C"], ["t1", "contrast_agent"]),
        (["T1", "NO"], ["t1"]),
        (["CANARY", "t2_tse"], ["t2"]),
        (["t2_tirm_tra_dark-fluid_4mm"], ["t2", "flair"]),
        (["eFLAIR_longTR"], ["flair"]),
        (["Ax T1 FLAIR"], ["t1", "flair"]),
        (["WIP sT1W_3D_TFE"], ["t1"]),
        (["ep2d_diff_3scan_trace_ADC"], ["diffusion", "functional"]),
        (["3D TOF MRA"], ["angiography"]),
        (["3-plane Localizer"], ["localizer"]),
        (["CANARY^PATIENT"], []),
    ],
)
def test_attributes_are_read_one_by_one(texts, expected):
    assert described(texts) == expected


def test_uniform_image_of_an_mp2rage():
    uniform = {
        **{"mp2rage_UNI_Images": True, "t1_mp2rage_sag_p3_iso_UNI": True, "university T1": False},
        **{"t1_mp2rage_sag_UNI-DEN": False, "MP2RAGE_UNI_DEN": False, "t1_mp2rage_INV1": False},
    }
    for text, is_uniform in uniform.items():
        words = {*described([text])}
        assert ({"mp2rage", "uniform"} <= words and "denoised" not in words) is is_uniform, text
